"""Words of a command line of a command that is not Hydra's: those that begin with dashes, and values. No torch."""

from collections.abc import Sequence
from typing import Any

from sae_sweep.errors import ConfigError, reading_yaml


def split_options(
    command: str, arguments: Sequence[str], known: Sequence[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """The plain words, and the values of each option, given as `--name value` or `--name=value`. Raises ConfigError
    for an option that there is not, and one without a value."""
    words, options = list[str](), dict[str, list[str]]()
    left = iter(arguments)
    for word in left:
        if not word.startswith("--"):
            words.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if name not in known:
            raise ConfigError(f"{command}: --{name} is not one of {', '.join(f'--{one}' for one in known)}")
        given = value if equals else next(left, "")
        if not given or given.startswith("--"):
            raise ConfigError(f"{command}: --{name} needs a value")
        options.setdefault(name, []).append(given)
    return words, options


def one_option(command: str, options: dict[str, list[str]], name: str, default: str | None = None) -> str:
    """The value of an option that is given once. Raises ConfigError where it is missing or given twice."""
    values = options.get(name, [] if default is None else [default])
    if len(values) != 1:
        raise ConfigError(f"{command}: give --{name} once")
    return values[0]


def read_value(key: str, text: str) -> Any:
    """A value as YAML has it, but that no text is empty text, as for Hydra, and not null. Raises ConfigError for what
    it cannot be."""
    if not text.strip():
        return ""
    from omegaconf import OmegaConf  # not every command needs it

    with reading_yaml(lambda why: f"{key}={text}: the value cannot be read ({why})"):
        found: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=True)
    return found["value"]
