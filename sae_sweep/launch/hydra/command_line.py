"""The command line as Hydra needs it, from the command line as people type it."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, QuotedString

from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError

SHOWING = {"--help", "-h", "--cfg", "-c"}
"""Options that compose one config and print something of it."""
PASSED_ON = {"--hydra-help", "--version", "--info", "-i", "--shell-completion", "-sc", "--experimental-rerun"}
"""Options of Hydra that are none of ours."""
MODES = {"--multirun", "-m", "--run", "-r"}
GROUPS = {field.name for field in fields(MemberConfig) if is_dataclass(field.type)} | {"experiment"}
TAKES_A_VALUE = {
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--config-dir",
    "-cd",
}


def prepared(arguments: Sequence[str]) -> list[str]:
    """The arguments for `hydra.main`.

    * `experiment=x` becomes `+experiment=x`: there is no default experiment to replace.
    * To train, `--multirun` is stated, because Hydra takes a config it cannot compose for a single run and then
      complains of the commas; and `sae.*` values become choices of one, which Hydra leaves to the members: whether
      `sae.k` exists depends on each member's architecture.
    * To show a config, a list of values is cut to its first.
    """
    options = {argument.split("=", 1)[0] for argument in arguments if argument.startswith("-")}
    if options & PASSED_ON:
        return list(arguments)
    overrides = {place: _parsed(_added_experiment(arguments[place])) for place in _override_places(arguments)}
    change = _left_to_members
    if options & SHOWING:
        change = _cut
    elif any(o.key_or_group == "hydra.mode" and o.value() == "RUN" for o in overrides.values()):
        change = _single
    changed = [
        change(overrides[place]) if place in overrides else argument
        for place, argument in enumerate(arguments)
        if argument not in MODES
    ]
    return ["--multirun", *changed] if change is _left_to_members else changed


def _override_places(arguments: Sequence[str]) -> list[int]:
    places = []
    for place, argument in enumerate(arguments):
        before = arguments[place - 1] if place else ""
        if not argument.startswith("-") and before not in TAKES_A_VALUE:
            places.append(place)
    return places


def _parsed(text: str) -> Override:
    if "=" not in text and not text.startswith("~"):
        raise ConfigError(f"{text}: neither key=value nor a command, which comes first")
    override: Override = OverridesParser.create().parse_overrides([text])[0]
    key, value = override.key_or_group, override.value()
    if key == "experiment" and override.is_sweep_override():
        raise ConfigError(f"{text}: a sweep has one experiment, whose grids it trains; run one command for each")
    if (key in GROUPS or "/" in key) and not override.is_delete():
        several = key == "experiment"  # of which Hydra puts one upon the other
        if not all(_is_choice(one, several) for one in (value.list if isinstance(value, ChoiceSweep) else [value])):
            raise ConfigError(
                f"{text}: {key} is a group of keys; choose one of its files (`sae-sweep --help` lists them)"
            )
    return override


def _is_choice(value: Any, several: bool) -> bool:
    """Whether a value can be one of a group's files, several of them, or keys to change in it."""
    if isinstance(value, list):
        return several and all(isinstance(one, str) for one in value)
    return isinstance(value, str | QuotedString | dict | Glob | IntervalSweep)  # an interval is told of later


def _added_experiment(text: str) -> str:
    return f"+{text}" if text.startswith("experiment=") else text


def _cut(override: Override) -> str:
    if not override.is_sweep_override():
        return str(override.input_line)
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.input_line}: an interval has no first value to show; give one value")
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def _single(override: Override) -> str:
    if override.is_sweep_override():
        raise ConfigError(f"{override.input_line}: hydra.mode=RUN trains one member; give one value, or leave it out")
    return str(override.input_line)


def _left_to_members(override: Override) -> str:
    key, _, value = str(override.input_line).partition("=")
    if not key.startswith("sae.") or override.is_sweep_override() or not value:
        return str(override.input_line)
    # Hydra does not take choice(null); a value listed twice is one member.
    return f"{key}=null,null" if override.value() is None else f"{key}=choice({value})"
