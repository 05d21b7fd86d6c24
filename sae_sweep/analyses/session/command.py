"""`sae-sweep eval DIR --analysis NAME[,NAME] [analysis.NAME.KEY=VALUE ...] [--member LABEL]`: ask analyses, and write
what they find."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sae_sweep import __version__
from sae_sweep.analyses import ANALYSES
from sae_sweep.analyses.session.finished import FinishedSae, finished_saes
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.result import Result
from sae_sweep.analyses.session.session import Session
from sae_sweep.analyses.session.told import Told
from sae_sweep.analyses.session.writing import write_result
from sae_sweep.config.command_line import read_value
from sae_sweep.config.values import LARGEST, shown
from sae_sweep.errors import ConfigError, first_line
from sae_sweep.folder import names

MOST = 2**31
"""Below which whole numbers are: a larger one of something would not end."""


@dataclass(frozen=True)
class Asked:
    """What a command line asks."""

    analyses: tuple[str, ...]
    overrides: dict[str, dict[str, Any]]
    """What is given of the keys of each."""
    members: tuple[str, ...]


def analyse(root: Path, arguments: Sequence[str], config_folder: Path) -> None:
    """Run the analyses that a command line asks of a sweep, and print and write their results.

    The same command goes on with what one that was killed has begun. Raises ConfigError for an analysis or a key that
    there is not, before anything is read.
    """
    asked = _parsed(arguments)
    overrides = dict(asked.overrides)
    configs = {name: analysis_config(name, overrides.pop(name, {}), config_folder) for name in asked.analyses}
    if overrides:
        raise ConfigError(f"analysis.{next(iter(overrides))}: not asked for; name it in --analysis")
    saes = finished_saes(root, asked.members)
    kept = {name: Kept(_state(root, name), _signature(name, config, saes)) for name, config in configs.items()}
    with ExitStack() as stack:
        for name, result in results(saes, configs, kept, stack.enter_context(Told())).items():
            write_result(root, name, asdict(configs[name]), result)
    for one in kept.values():
        one.forget()


def results(
    saes: Sequence[FinishedSae],
    configs: Mapping[str, Any],
    kept: Mapping[str, Kept] | None = None,
    told: Told | None = None,
) -> dict[str, Result]:
    """What analyses, by name with their configs, find in members of a sweep; read in step."""
    for sae in saes:
        if sae.entries.get("site.across") is not None and sae.entries.get("site.output") is not None:
            raise ConfigError(f"eval: {sae.label} is a cross-layer transcoder, which no analysis reads; leave it out")
    session = Session.of(saes)
    kept = kept or {name: Kept() for name in configs}
    told = told or session.told
    runs = {
        name: ANALYSES[name].run(replace(session, kept=kept[name], told=told), session.saes, config)
        for name, config in configs.items()
    }
    streams = session.streams
    return read(runs, streams.batches, kept, lambda: streams.batch_count, told)


def _parsed(arguments: Sequence[str]) -> Asked:
    asked, members, overrides = list[str](), list[str](), dict[str, dict[str, Any]]()
    words = iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag in ("--analysis", "--member"):
            given = (value if equals else next(words, "")).split(",")
            (asked if flag == "--analysis" else members).extend(given)
            continue
        parts = flag.split(".")
        if not equals or len(parts) != 3 or parts[0] != "analysis":
            raise ConfigError(f"eval: {word} is none of --analysis NAME, --member LABEL, analysis.NAME.KEY=VALUE")
        overrides.setdefault(parts[1], {})[parts[2]] = read_value(flag, value)
    return Asked(tuple(dict.fromkeys(asked)), overrides, tuple(members))


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
        made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), shipped, given))
    except OmegaConfBaseException as error:
        raise ConfigError(f"analysis.{name}.{error.full_key}: {first_line(error)}") from error
    for key in known:
        _check_numbers(f"analysis.{name}.{key}", getattr(made, key))
    return made


def _check_numbers(key: str, value: Any) -> None:
    """Raises ConfigError for a number, or one of a list, that no analysis can go by: what is whole counts something, or
    is a seed."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, float) and not abs(one) <= LARGEST:  # nor is NaN
            raise ConfigError(f"{key}={shown(value)} must be finite, and at most {LARGEST:.0e} in size")
        if isinstance(one, int) and not 0 <= one < MOST:
            raise ConfigError(f"{key}={shown(value)} must be at least 0, and below 2^31")


def _state(root: Path, name: str) -> Path:
    return root / names.STATE / names.ANALYSES / f"{name}.safetensors"


def _signature(name: str, config: Any, saes: Sequence[FinishedSae]) -> str:
    """Of all that the numbers of an analysis depend on."""
    weights = [(one.label, one.entries, (one.folder / names.WEIGHTS).stat().st_mtime_ns) for one in saes]
    said = json.dumps([__version__, name, asdict(config), weights, _changed(config)], sort_keys=True, default=str)
    return blake2b(said.encode(), digest_size=16).hexdigest()


def _changed(config: Any) -> list[int]:
    """When the files were changed that a config names, as a path, or as module:function of the working folder."""
    named = [value for value in asdict(config).values() if isinstance(value, str)]
    files = [Path(value).expanduser() for value in named]
    files += [Path(value.partition(":")[0].replace(".", "/") + ".py") for value in named]
    return [file.stat().st_mtime_ns for file in files if file.is_file()]
