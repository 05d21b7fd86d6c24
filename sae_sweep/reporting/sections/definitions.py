"""What the numbers mean, at the foot of the page."""

from collections.abc import Iterator
from html import escape

from sae_sweep.evaluation.metrics import METRICS, REPORT, shown
from sae_sweep.reporting.cell import modelless
from sae_sweep.reporting.page import Cell, Page
from sae_sweep.reporting.table import columns

PLACE, SPAN = 90, "page"

COUNTED = (
    "Every number is taken over the same held-out tokens and the same positions: not a special token, not padding, "
    "not the first position of a row without a beginning-of-sequence token. Only counted positions are replaced or "
    "ablated (all of them where positions says so); cross-entropy (CE) and KL average over counted positions whose "
    "next token is not special."
)
HELD_OUT = "All numbers are taken over the same held-out activations, which no member was trained on."
FRONTIER = (
    "A member is on the frontier when no other of its cell has both an L0 as low and {} as high, and is better in one. "
    "A cell is what may be compared: {}."
)


def html(page: Page, cell: Cell | None) -> str:
    """A definition for every column of the members' table, and the words around them."""
    entries = "".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in _terms(page))
    return f"<footer><h2>What the numbers mean</h2><dl class=definitions>{entries}</dl></footer>"


def _terms(page: Page) -> Iterator[tuple[str, str]]:
    made = [kind for cell in page.cells if (kind := modelless(cell["key"])) is not None]
    of_models = len(made) < len(page.cells) or not page.cells
    if of_models:
        yield "Counted positions", COUNTED
    for noun, meaning in {kind.NOUN: kind.MEANING for kind in made}.items():
        yield noun.capitalize(), f"{meaning} {HELD_OUT}"
    for metric in columns(page.cells, REPORT) or shown(REPORT, toy=False):
        yield metric.title, metric.definition
    if of_models:
        compared = "one model, site, set of positions and held-out tokens"
        yield "Frontier", FRONTIER.format(METRICS["ce_recovered"].name, compared)
    if made:
        yield "Frontier", FRONTIER.format(METRICS["explained_variance"].name, "activations of one source")
    yield "±", "One standard error, from a paired jackknife over the held-out sequences. Training seeds vary more."
