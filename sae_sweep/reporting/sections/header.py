"""The sweep's name, how to read its charts, and how many members are in what state."""

from html import escape

from sae_sweep.reporting.cell import synthetic
from sae_sweep.reporting.page import Cell, Page

PLACE, SPAN = 0, "page"


def html(page: Page, cell: Cell | None) -> str:
    """The head of the page."""
    record = page.record
    states = [("finished", len(record.points) + len(record.notes))]
    for state in ("running", "planned", "failed"):
        states.append((state, sum(member["state"] == state for member in record.unfinished)))
    told = ", ".join(f"{number} {state}" for state, number in states if number) or "no members"
    toy = bool(page.cells) and all(synthetic(cell["key"]) is not None for cell in page.cells)
    kept = "explains more of the activations" if toy else "keeps more of the model's performance"
    return (
        f"<header><p class=eyebrow>sae-sweep report</p><h1>{escape(record.name)}</h1><p class=lead>Each point is one"
        f" sparse autoencoder: further left it uses fewer latents per token, higher up it {kept}, so"
        " better lies up and to the left, and the lines join each architecture's best.</p>"
        f"<p class=quiet>Members: {told}.</p></header>"
    )
