"""JSON that others may have written or damaged. No torch."""

import json
from pathlib import Path
from typing import Any


def read_object(file: Path) -> dict[str, Any]:
    """The entries of a JSON file.

    Raises OSError, and ValueError where it is not UTF-8, not JSON, nested too deeply, or holds no object.
    """
    return parsed_object(file.read_text(encoding="utf-8"))


def parsed_object(text: str) -> dict[str, Any]:
    """The entries of a JSON text. Raises ValueError as `read_object` does."""
    try:
        entries = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(entries, dict):
        raise ValueError("not a JSON object")
    return entries
