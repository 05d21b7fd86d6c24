"""The columns that tables of members have, and how their numbers are written."""

from dataclasses import dataclass

from sae_sweep.reporting.points import Point, finite


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

TERMINAL_COLUMNS = (L0, CE_RECOVERED, CE_DELTA, KL, FVU, GAMMA, DEAD, ALIVE)
REPORT_COLUMNS = (L0, CE_RECOVERED, CE_DELTA, KL, FVU, COSINE, GAMMA, DEAD, ALIVE, DENSE)


def number(value: float | None) -> str:
    """A configured number, short: 0.0006, 1e-05, 16384."""
    if value is None:
        return "-"
    return f"{value:d}" if isinstance(value, int) else f"{value:.6g}"


def knob(point: Point) -> str:
    """What set the member's sparsity: `l1=0.0006`."""
    return f"{point['knob']}={number(point['knob_value'])}"


def count(value: float | None) -> str:
    """A count of tokens, short: 1.5k, 200M."""
    if value is None:
        return "-"
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def cell_title(key: dict[str, object]) -> str:
    """A cell in a line: model, revision and site."""
    site = key["site"]
    assert isinstance(site, dict)
    model = str(key["model"]).rstrip("/").rpartition("/")[2]
    revision = f" @ {key['revision']}" if key["revision"] else ""
    places = site["in"] if site["in"] == site["out"] else f"{site['in']} → {site['out']}"
    return f"{model}{revision} · {places}"
