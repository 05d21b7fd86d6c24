"""The command line as Hydra needs it, from the command line as people type it."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, QuotedString

from sae_sweep.config.reading import GROUPS
from sae_sweep.errors import ConfigError

SHOWING = {"--help", "-h", "--cfg", "-c"}
"""Options that compose one config and print something of it."""
PASSED_ON = {"--hydra-help", "--version", "--info", "-i", "--shell-completion", "-sc"}
"""Options of Hydra that are none of ours."""
MODES = {"--multirun", "-m", "--run", "-r"}
CHOICES = {
    **dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")),
    **dict.fromkeys(("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
}
TAKES_A_VALUE = {
    *("--cfg", "-c", "--info", "-i", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn"),
    *("--config-dir", "-cd"),
}
OPTIONS = {*SHOWING, *PASSED_ON, *MODES, *TAKES_A_VALUE, "--resolve"}


def prepared(arguments: Sequence[str]) -> list[str]:
    """The arguments for `hydra.main`: options first, wherever they were, for its parser takes overrides in one row.

    * `experiment=x` becomes `+experiment=x`: there is no default experiment to replace.
    * To train, `--multirun` is stated, because Hydra takes a config it cannot compose for a single run and then
      complains of the commas; and `sae.*` values become choices of one, which Hydra leaves to the members: whether
      `sae.k` exists depends on each member's architecture.
    * To show a config, a list of values is cut to its first.
    """
    options, texts = _parted(arguments)
    names = {option.split("=", 1)[0] for option in options}
    if names & PASSED_ON:
        return [*options, *texts]
    if (alone := names & {"--resolve", "--package", "-p"}) and not names & {"--cfg", "-c"}:
        raise ConfigError(f"{min(alone)}: says how --cfg job prints a config; give that too")
    overrides = [_parsed(_added_experiment(text)) for text in texts]
    last = {o.key_or_group: o for o in overrides}  # of a key that is given twice
    sized = [last[key] for key in ("sae.width", "sae.expansion") if key in last and last[key].value() is not None]
    if len(sized) > 1:
        raise ConfigError(f"{' and '.join(str(o.input_line) for o in sized)} both set the number of latents; give one")
    change = _left_to_members
    if names & SHOWING:
        change = _cut
    elif any(o.key_or_group == "hydra.mode" and o.value() == "RUN" for o in overrides):
        change = _single
    changed = [*(option for option in options if option not in MODES), *map(change, overrides)]
    return ["--multirun", *changed] if change is _left_to_members else changed


def _parted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options, each followed by its value, and the overrides."""
    options, overrides = list[str](), list[str]()
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            overrides.append(word)
            continue
        if name not in OPTIONS or (equals and name not in TAKES_A_VALUE):
            near = get_close_matches(name, OPTIONS, n=1)
            guess = f"did you mean {near[0]}?" if near else "`sae-sweep --help` says what there is"
            raise ConfigError(f"{word}: no such option; {guess}")
        options.append(word)
        if name in TAKES_A_VALUE and not equals:
            value = next(words, "")
            options.append(value)
        known = CHOICES.get(name, [value])
        if name in TAKES_A_VALUE and (not value or value not in known):
            raise ConfigError(f"{name}: takes {' or '.join(CHOICES.get(name, ['a value']))}, not {value or 'nothing'}")
    return options, overrides


def _parsed(text: str) -> Override:
    if "=" not in text and not text.startswith("~"):
        raise ConfigError(f"{text}: neither key=value nor a command, which comes first")
    try:
        override: Override = OverridesParser.create().parse_overrides([text])[0]
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise ConfigError(f"{text[:40]} ...: cannot be read; its value is too long or nests too deeply") from error
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
