"""Reading the single values of a config, and writing numbers short.

Nothing is guessed, so `true` is no number and `8.5` no whole one.
"""

import re
import sys
from math import inf
from typing import Any

_LOG_SPACED = re.compile(r"log:([1-9]\d{0,2})")


MOST_TEXT = 4096
"""Characters: what a path may have."""
LARGEST = 10**18
"""Beyond it is no number of anything here, and sums of such lose their last digits."""


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or (isinstance(value, int) and abs(value) > LARGEST):
        raise ValueError("text (quote it)")
    text = shown(value)
    if len(text) > MOST_TEXT or "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError(f"text of at most {MOST_TEXT} characters that UTF-8 and file names can have")
    return text


def _whole_number(value: Any) -> int:
    if not _is_number(value) or value != int(value):
        raise ValueError("a whole number" + _of_a_size(value))
    return int(value)


def _number(value: Any) -> float:
    if not _is_number(value):
        raise ValueError("a number" + _of_a_size(value))
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _of_a_size(value: Any) -> str:
    large = isinstance(value, int | float) and inf > abs(value) > LARGEST
    return f" of at most {LARGEST:.0e} in size" if large else ""


def _number_or_auto(value: Any) -> float | str:
    if value == "auto":
        return "auto"
    if not _is_number(value):
        raise ValueError("auto or a number" + _of_a_size(value))
    return float(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _dry(value: Any) -> bool | str:
    if not isinstance(value, bool) and value != "members":
        raise ValueError("true, false or members")
    return bool(value) if isinstance(value, bool) else "members"


def _paths(value: Any) -> str | list[str] | None:
    """The only fields typed Any: one path, a list of them, or null."""
    if value is None or isinstance(value, str):
        return None if value is None else _text(value)
    if isinstance(value, list) and value and all(isinstance(path, str) for path in value):
        return [_text(path) for path in value]
    raise ValueError("a path or a list of paths")


def _places(value: Any) -> list[int | str] | str:
    if value == "all":
        return "all"
    if isinstance(value, list) and all(isinstance(at, int | str) and not isinstance(at, bool) for at in value):
        return [_text(at) if isinstance(at, str) else _whole_number(at) for at in value]
    raise ValueError("a list of layers or hook names, or all")


def _numbers(value: Any) -> list[float]:
    if isinstance(value, list) and all(map(_is_number, value)):
        return [float(number) for number in value]
    raise ValueError("a list of numbers")


def _lines(value: Any) -> list[str]:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return value
    raise ValueError("a list of texts")


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise ValueError("a mapping, like {key: value}")


def _devices(value: Any) -> dict[str, int | str] | str:
    wanted = "a word, or devices by the names of modules, like {model.layers.0: 0, model.layers.1: cpu}"
    if isinstance(value, str):
        return _text(value)
    if not isinstance(value, dict) or not value:
        raise ValueError(wanted)
    try:
        return {_text(name): _text(at) if isinstance(at, str) else _whole_number(at) for name, at in value.items()}
    except ValueError:
        raise ValueError(wanted) from None


def _milestones(value: Any) -> list[int] | str:
    wanted = "a list of token counts like [1e5,1e6], or log:8 for eight of them log-spaced (at most log:999)"
    if isinstance(value, str) and _LOG_SPACED.fullmatch(value):
        return value
    if not isinstance(value, list) or not value:
        raise ValueError(wanted)
    try:
        return [_whole_number(tokens) for tokens in value]
    except ValueError:
        raise ValueError(wanted) from None


SCALARS: dict[Any, Any] = {
    str: _text,
    int: _whole_number,
    float: _number,
    bool: _truth,
    bool | str: _dry,
    float | str | None: _number_or_auto,
    list[int]: _milestones,
    list[float]: _numbers,
    list[int | str]: _places,
    list[str]: _lines,
    dict[str, Any]: _mapping,
    dict[str, int | str]: _devices,
    Any: _paths,
}
"""Readers by the type of a key; each raises ValueError with the words for what it wanted."""


def shown(value: Any) -> str:
    """A value as one types it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, int) and abs(value) > LARGEST:  # Python writes out no more than 4,300 digits
        return f"a number of {int(value.bit_length() * 0.30103) + 1} digits"
    return str(value)


def finite(value: float | None) -> float | None:
    """The value, or None where it is NaN or infinite, which JSON cannot say, or no float has so many digits."""
    return value if value is not None and abs(value) <= sys.float_info.max else None


def counted(number: int, noun: str) -> str:
    """`1 member`, `2 members`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def number(value: float | None) -> str:
    """A configured number, short: 0.0006, 1e-05, 16384."""
    if value is None:
        return "-"
    return f"{value:d}" if isinstance(value, int) else f"{value:.6g}"


def count(value: float | None) -> str:
    """A count of tokens, short: 1.5k, 200M."""
    if value is None:
        return "-"
    rounded = float(f"{value:.3g}")  # first: of 999,999 there are 1M, not a thousand k
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if rounded >= size:
            return f"{rounded / size:g}{unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """Seconds as 45s, 4m10s or 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
