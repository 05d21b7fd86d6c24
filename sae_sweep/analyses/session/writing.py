"""Results as files, and as lines for a terminal."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sae_sweep.analyses.session.result import Number, Result
from sae_sweep.folder import names
from sae_sweep.folder.files import write_json_atomic, write_text_atomic
from sae_sweep.host.terminal import tell

FORMAT = 1
LARGE = 1e6
"""From here on a terminal is told four digits."""


def write_result(root: Path, name: str, config: dict[str, Any], result: Result) -> None:
    """The sweep's file with all numbers, and each member's with its own; the same numbers to the terminal."""
    head = {"version": FORMAT, "analysis": name, "config": config}
    everything = asdict(result)
    details, files = everything.pop("details"), everything.pop("files")
    _put(root, name, {**head, **everything})
    for label in dict.fromkeys((*everything["members"], *details)):
        own = {"numbers": everything["members"].get(label, {}), "details": details.get(label)}
        _put(root / label, name, {**head, **own})
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(file, text)
    for owner, found in [("", result.numbers), *result.members.items()]:
        for what, number in found.items():
            tell(f"{name:<12} {owner:<32} {what:<32} {_shown(number)}")


def _put(folder: Path, name: str, entries: dict[str, Any]) -> None:
    (folder / names.ANALYSES).mkdir(exist_ok=True)
    write_json_atomic(folder / names.ANALYSES / f"{name}.json", entries)


def _shown(number: Number) -> str:
    error = "" if number.standard_error is None else f" +- {_short(number.standard_error)}"
    control = "" if number.control is None else f", control {_short(number.control)}"
    return f"{_short(number.value)}{error} (n {number.n}{control})"


def _short(value: float) -> str:
    return f"{value:.4f}" if abs(value) < LARGE else f"{value:.4g}"
