"""What readers must know of the numbers, and the members that are not finished."""

from html import escape

from sae_sweep.reporting.page import Cell, Page

PLACE, SPAN = 80, "page"


def html(page: Page, cell: Cell | None) -> str:
    """A list and a table; nothing where there is neither."""
    items = "".join(
        f"<tr><th scope=row>{escape(member['member'])}</th><td>{escape(member['state'])}</td>"
        f"<td class=reason>{escape(member['reason'])}</td></tr>"
        for member in page.record.unfinished
    )
    told = "".join(f"<li>{escape(note)}</li>" for note in page.notes)
    notes = f"<h2>Notes</h2><ul>{told}</ul>" if told else ""
    if items:
        notes += (
            "<h2>Not finished</h2><div class=scroll><table class=members><thead><tr><th scope=col>Member</th>"
            f"<th scope=col>State</th><th scope=col>Reason</th></tr></thead><tbody>{items}</tbody></table></div>"
        )
    return f"<section>{notes}</section>" if notes else ""
