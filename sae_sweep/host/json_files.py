"""JSON that others may have written or damaged. No torch."""

import json
from math import isfinite
from pathlib import Path
from typing import Any


def read_object(file: Path, *, finite: bool = True) -> dict[str, Any]:
    """The entries of a JSON file.

    Raises OSError, and ValueError where it is not UTF-8, not JSON, nested too deeply, or holds no object; and where a
    number is infinite or none, unless `finite` is False, as configs of others have such.
    """
    return parsed_object(file.read_text(encoding="utf-8"), finite=finite)


def parsed_object(text: str, *, finite: bool = True) -> dict[str, Any]:
    """The entries of a JSON text. Raises ValueError as `read_object` does."""
    try:
        entries = json.loads(text, parse_constant=_finite, parse_float=_finite) if finite else json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(entries, dict):
        raise ValueError("not a JSON object")
    return entries


def _finite(text: str) -> float:
    """The number that JSON spells so; nothing of ours writes others, and what reads them would write them again."""
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value
