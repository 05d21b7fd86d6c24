"""A family of models: their training compute, and their CE from a table or measured."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.heldout import HeldOutBatch
from sae_sweep.evaluation.splice import measured
from sae_sweep.model.language_model import LanguageModel

COLUMNS = ("compute", "ce")
ERROR = "standard_error"


@dataclass(frozen=True)
class Row:
    """A model of a table."""

    compute: float
    ce: float
    standard_error: float = 0.0
    """Of CE."""


def read_table(key: str, path: str) -> list[Row]:
    """The rows of a CSV file. Raises ConfigError, which begins with the key, for one that is of no use."""
    file, where = Path(path).expanduser(), f"{key}={path}"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} cannot be read ({error})") from error
    rows = csv.DictReader(lines)
    lacking = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if lacking:
        raise ConfigError(f"{where} has no column {lacking[0]}; its first line names them: compute, ce[, {ERROR}]")
    found = []
    for number, row in enumerate(rows, start=2):
        try:
            values = [float(row[name] or "") for name in COLUMNS] + [float(row.get(ERROR) or 0)]
        except (TypeError, ValueError):
            raise ConfigError(f"{where}: line {number} has something that is no number") from None
        if not all(isfinite(value) for value in values) or values[0] <= 0 or values[2] < 0:
            raise ConfigError(f"{where}: line {number} must have compute above 0, and finite numbers")
        found.append(Row(*values))
    return found


@torch.no_grad()
def ce_at(model: LanguageModel, rows: HeldOutBatch, target_RT: Tensor) -> Tensor:
    """[N] float64: a model's cross-entropy at the positions of a mask, in nats."""
    tokens_RT = rows.clean.tokens_RT.to(model.device)
    row_N, position_N = target_RT.nonzero(as_tuple=True)
    final_ND = model.final_hidden(tokens_RT)[row_N, position_N]
    return measured(model, final_ND, [], tokens_RT[row_N, position_N + 1])[0, 0]


def check_models(key: str, models: Sequence[str], compute: Sequence[float]) -> None:
    """Raises ConfigError for models without their compute, and for compute that is none."""
    if len(models) != len(compute):
        raise ConfigError(f"{key}.compute has {len(compute)} numbers for {len(models)} models; give one for each")
    if not all(isfinite(each) and each > 0 for each in compute):
        raise ConfigError(f"{key}.compute={list(compute)} must be numbers above 0")
