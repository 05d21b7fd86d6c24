"""What a cell's numbers are held against: the model without an SAE, or what synthetic activations are made of."""

from html import escape

from sae_sweep.config.values import count
from sae_sweep.reporting.cell import modelless
from sae_sweep.reporting.page import Cell, Page

PLACE, SPAN = 10, "cell"


def html(page: Page, cell: Cell) -> str:
    """A list of facts."""
    made, key = modelless(cell["key"]), cell["key"]
    if made is None:
        facts = _of_model(cell)
    else:
        told = ("Held-out activations", count(cell["tokens"])), ("Precision", str(key["dtype"]))
        facts = [*made.facts(key["evaluation"]["data"]), *told]
    return "<dl class=facts>" + "".join(f"<div><dt>{t}</dt><dd>{escape(v)}</dd></div>" for t, v in facts) + "</dl>"


def _of_model(cell: Cell) -> list[tuple[str, str]]:
    base, key = cell["baselines"], cell["key"]
    return [
        ("CE, clean model", _nats(base["ce_clean"])),
        ("CE, zero ablation", _nats(base["ce_zero"])),
        ("CE, mean ablation", _nats(base["ce_mean"])),
        ("Held-out tokens", count(cell["tokens"])),
        ("Positions", str(key["positions"])),
        ("Outliers left out", outliers(cell) or "none"),
        ("Model precision", str(key["dtype"])),
    ]


def outliers(cell: Cell) -> str | None:
    """The largest share of held-out positions that a member leaves out for their norm; None where none is."""
    most = max((point.get("outlier_fraction") or 0.0 for point in cell["points"]), default=0.0)
    return f"{100 * most:.2g}%" if most else None


def _nats(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f} nats"
