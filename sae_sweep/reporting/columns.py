"""The columns that tables of members have, and how their numbers are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sae_sweep.config.values import finite, number
from sae_sweep.reporting.points import Point, synthetic


@dataclass(frozen=True)
class Column:
    """One number of a member, as tables show it."""

    key: str
    title: str
    digits: int
    """After the decimal point."""
    error: str | None = None
    """The key of its standard error."""
    scale: float = 1.0
    title_long: str = ""

    def text(self, point: Point) -> str:
        """The number, with its standard error where it has one; `-` where it is undefined."""
        value = self.value(point)
        if value is None:
            return "-"
        shown = f"{value:.{self.digits}f}"
        error = finite(point.get(self.error)) if self.error else None
        return shown if error is None else f"{shown} ±{error * self.scale:.{self.digits}f}"

    def value(self, point: Point) -> float | None:
        """The number in the column's unit."""
        value = finite(point.get(self.key))
        return None if value is None else value * self.scale


L0 = Column("l0", "L0", 1, error="l0_se", title_long="active latents per token")
CE_RECOVERED = Column(
    "ce_recovered", "CE recovered", 4, error="ce_recovered_se", title_long="fraction of the zero-ablation loss"
)
CE_DELTA = Column("ce_delta", "CE delta", 4, title_long="rise of the model's loss, nats per token")
KL = Column("kl", "KL", 4, title_long="KL(clean || SAE), nats per token")
FVU = Column("fvu", "FVU", 4, title_long="fraction of variance unexplained")
GAMMA = Column("gamma", "gamma", 3, title_long="relative reconstruction bias; 1 is none")
DEAD = Column("dead_fraction", "dead %", 1, scale=100, title_long="latents that no longer fire in training")
ALIVE = Column("alive", "alive %", 1, scale=100, title_long="latents that fired on the held-out tokens")
COSINE = Column("cosine", "cosine", 4, title_long="of activation and reconstruction")
DENSE = Column("density_over_10pct", "dense %", 2, scale=100, title_long="latents that fire on over 10% of tokens")

EXPLAINED = Column("explained_variance", "expl. var.", 4, title_long="1 - fraction of variance unexplained")
MMCS_TRUTH = Column("mmcs_truth", "MMCS truth", 3, title_long="mean best cosine of a true latent with a learned one")
MMCS_FREQUENT = Column("mmcs_truth_frequent", "MMCS freq.", 3, title_long="of the true latents frequent in training")
MMCS_LATENTS = Column(
    "mmcs_latents", "MMCS latents", 3, title_long="mean best cosine of a learned latent with a true one"
)

LATER_FVU = Column("later_fvu", "later FVU", 4, title_long="unexplained variance at later sites of the spliced model")
"""Shown where it was measured."""

TERMINAL_COLUMNS = (L0, CE_RECOVERED, CE_DELTA, KL, FVU, GAMMA, DEAD, ALIVE)
REPORT_COLUMNS = (L0, CE_RECOVERED, CE_DELTA, KL, FVU, COSINE, GAMMA, DEAD, ALIVE, DENSE)
MMCS_COLUMNS = (MMCS_TRUTH, MMCS_FREQUENT, MMCS_LATENTS)
TOY_TERMINAL_COLUMNS = (L0, EXPLAINED, *MMCS_COLUMNS, GAMMA, DEAD, ALIVE)
TOY_REPORT_COLUMNS = (L0, EXPLAINED, *MMCS_COLUMNS, FVU, COSINE, GAMMA, DEAD, ALIVE, DENSE)


def terminal_columns(cell: Mapping[str, Any]) -> tuple[Column, ...]:
    """What the terminal's table of a cell shows."""
    if synthetic(cell["key"]) is not None:
        return TOY_TERMINAL_COLUMNS
    return TERMINAL_COLUMNS + ((LATER_FVU,) if _watched(cell) else ())


def report_columns(cells: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    """What the report's one table of all cells shows: whatever one of them has."""
    kinds = {synthetic(cell["key"]) is None for cell in cells}
    found = (REPORT_COLUMNS if True in kinds else ()) + (TOY_REPORT_COLUMNS if False in kinds else ())
    return tuple(dict.fromkeys(found + ((LATER_FVU,) if any(map(_watched, cells)) else ())))


def _watched(cell: Mapping[str, Any]) -> bool:
    """Whether later sites were looked at for some member."""
    return any(LATER_FVU.value(point) is not None for point in cell["points"])


def knob(point: Point) -> str:
    """What set the member's sparsity: `l1=0.0006`."""
    return f"{point['knob']}={number(point['knob_value'])}"


def cell_title(key: Mapping[str, Any]) -> str:
    """A cell in a line: model, revision and site, or what synthetic activations are made of."""
    made, site = synthetic(key), key["site"]
    if made is not None:
        return f"synthetic activations · {made.title(key['evaluation']['data'])}"
    model = str(key["model"]).rstrip("/").rpartition("/")[2]
    revision = f" @ {key['revision']}" if key["revision"] else ""
    places = site["in"] if site["in"] == site["out"] else f"{site['in']} → {site['out']}"
    return f"{model}{revision} · {places}"
