"""Numbers that papers give of SAEs, to be seen beside a sweep's: `configs/published/*.csv`, or any such file.

A file's first lines begin with `#`: its citation, and what else readers must know. Its columns are model and hook, as
cells have them, architecture, width, knob, knob_value, lr, and metrics under their own keys, empty where the paper does
not say. Published members were judged on other tokens, so they are drawn, and take no part in any frontier.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_sweep.config.values import finite
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.metrics import METRICS

FACTS = ("model", "hook", "architecture", "knob")
NUMBERS = ("width", "knob_value", "lr")


def shipped(folder: Path) -> list[Path]:
    """The files that come with the program, in `configs/`."""
    return sorted((folder / "published").glob("*.csv"))


def read_published(file: Path) -> list[dict[str, Any]]:
    """The rows of a file, each with its `citation`. Raises ConfigError for one that cannot be used."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error})") from error
    citation = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    lacking = [name for name in (*FACTS, "l0") if name not in (rows.fieldnames or ())]
    if lacking:
        raise ConfigError(f"{file}: has no column {lacking[0]}; see configs/published for how such a file looks")
    return [_row(file, number, row) | {"citation": citation} for number, row in enumerate(rows, start=1)]


def of_cell(published: Iterable[Mapping[str, Any]], cell: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those of a cell's model, by the last part of its name, and of its site."""
    model, site = _short(str(cell["key"]["model"])), cell["key"]["site"]
    return [row for row in published if _short(row["model"]) == model and row["hook"] == site["in"] == site["out"]]


def read_all(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The rows of all files."""
    return [row for file in files for row in read_published(file)]


def _row(file: Path, number: int, row: Mapping[str, str | None]) -> dict[str, Any]:
    found: dict[str, Any] = {key: row[key] for key in FACTS}
    for key in (*NUMBERS, *METRICS):
        try:
            found[key] = finite(float(text)) if (text := row.get(key)) else None
        except ValueError:
            raise ConfigError(f"{file}: row {number}: {key} is {text}, not a number") from None
    clean, own = found["ce_clean"], found["ce_sae"]
    if found["ce_delta"] is None and clean is not None and own is not None:
        found["ce_delta"] = own - clean
    return found


def _short(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2]
