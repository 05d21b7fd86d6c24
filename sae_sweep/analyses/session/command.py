"""`sae-sweep eval DIR --analysis NAME[,NAME] [analysis.NAME.KEY=VALUE ...]`: ask analyses, and write what they find."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sae_sweep.analyses import ANALYSES
from sae_sweep.analyses.session.finished import finished_saes
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.result import Number, Result
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from sae_sweep.folder import names
from sae_sweep.folder.files import write_json_atomic

FORMAT = 1


def analyse(root: Path, arguments: Sequence[str], config_folder: Path) -> None:
    """Run the analyses that a command line asks of a sweep, and print and write their results.

    Raises ConfigError for an analysis or a key that there is not, before anything is read.
    """
    asked, overrides = _parsed(arguments)
    configs = {name: analysis_config(name, overrides.pop(name, {}), config_folder) for name in asked}
    if overrides:
        raise ConfigError(f"analysis.{next(iter(overrides))}: not asked for; name it in --analysis")
    for name, result in results(root, configs).items():
        _write(root, name, asdict(configs[name]), result)


def results(root: Path, configs: Mapping[str, Any]) -> dict[str, Result]:
    """What analyses, by name with their configs, find in a sweep; read in step."""
    saes = finished_saes(root)
    session = Session(saes)
    return read({name: ANALYSES[name].run(session, saes, config) for name, config in configs.items()}, session.batches)


def _parsed(arguments: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The names of the analyses, and what is given of their keys by name."""
    asked, overrides = list[str](), dict[str, dict[str, Any]]()
    words = iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag == "--analysis":
            asked += (value if equals else next(words, "")).split(",")
            continue
        parts = flag.split(".")
        if not equals or len(parts) != 3 or parts[0] != "analysis":
            raise ConfigError(f"eval: {word} is neither --analysis NAME nor analysis.NAME.KEY=VALUE")
        overrides.setdefault(parts[1], {})[parts[2]] = OmegaConf.from_dotlist([f"value={value}"])["value"]
    return list(dict.fromkeys(asked)), overrides


def analysis_config(name: str, given: Mapping[str, Any], folder: Path) -> Any:
    """The typed config of one analysis: its dataclass, its yaml where there is one, what is given of its keys. Raises
    ConfigError for an analysis or a key that there is not."""
    if name not in ANALYSES:
        raise ConfigError(f"--analysis={name}: no such analysis; known: {', '.join(sorted(ANALYSES))}")
    cls, file = ANALYSES[name].Config, folder / "analysis" / f"{name}.yaml"
    known = [field.name for field in fields(cls)]
    for key in given:
        if key not in known:
            raise ConfigError(f"analysis.{name}.{key}: no such key; its keys are {', '.join(known) or 'none'}")
    try:
        shipped: Any = OmegaConf.load(file) if file.is_file() else {}
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), shipped, given))
    except OmegaConfBaseException as error:
        raise ConfigError(f"analysis.{name}.{error.full_key}: {str(error).splitlines()[0]}") from error


def _write(root: Path, name: str, config: dict[str, Any], result: Result) -> None:
    """The sweep's file with all numbers, and each member's with its own; the same numbers to the terminal."""
    head = {"version": FORMAT, "analysis": name, "config": config}
    everything = asdict(result)
    _put(root, name, {**head, **everything})
    for label, numbers in everything["members"].items():
        _put(root / label, name, {**head, "numbers": numbers})
    for owner, found in [("", result.numbers), *result.members.items()]:
        for what, number in found.items():
            print(f"{name:<12} {owner:<32} {what:<32} {_shown(number)}")


def _put(folder: Path, name: str, entries: dict[str, Any]) -> None:
    (folder / names.ANALYSES).mkdir(exist_ok=True)
    write_json_atomic(folder / names.ANALYSES / f"{name}.json", entries)


def _shown(number: Number) -> str:
    error = "" if number.standard_error is None else f" +- {number.standard_error:.4f}"
    control = "" if number.control is None else f", control {number.control:.4f}"
    return f"{number.value:.4f}{error} (n {number.n}{control})"
