"""What a terminal shows of a sweep while it is trained: a head, and as many rows of members as there is room for."""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

MOST_ROWS = 20
"""Of members one by one; of more there is a row for each bank and sparsity."""
BAR, TITLE = 16, 20
"""Columns of the bar, and at most of the sweep's name."""
OTHERS = 3
"""Lines beside head and rows: the table's own head, and room for what scrolls by."""


@dataclass(frozen=True)
class Place:
    """Where a member belongs among the others."""

    bank: str
    """`gated at resid_post.2`."""
    kind: str
    """Bank and sparsity, `gated at resid_post.2, l0 16`."""


@dataclass(frozen=True)
class Shown:
    """One member as it stands."""

    label: str
    place: Place
    state: str
    values: tuple[float, float] | None
    """L0 and FVU of its last logged batch."""


def screen(
    title: str, share: float | None, told: Sequence[str], doing: str, members: Sequence[Shown], height: int
) -> Group:
    """The head, with a bar where a share of the work is known, and a table of members."""
    lines: list[RenderableType] = [_head(title, share, told[:2]), _line("  ".join([*told[2:], doing]))]
    return Group(*lines, *([_table(rows(members, height - len(lines) - OTHERS))] if members else []))


def rows(members: Sequence[Shown], room: int) -> list[tuple[str, str, str, str]]:
    """Name, L0, FVU and state of each member; of more than fit, medians of each bank and sparsity, else of each bank,
    else the smallest, median and largest of all."""
    if len(members) <= min(MOST_ROWS, room):
        return [(one.label, *_numbers([one]), one.state) for one in members]
    of_kind: Callable[[Shown], str] = lambda one: one.place.kind  # noqa: E731 - two of them, in a row
    of_bank: Callable[[Shown], str] = lambda one: one.place.bank  # noqa: E731
    for by in (of_kind, of_bank):
        found: dict[str, list[Shown]] = {}
        for one in members:
            found.setdefault(by(one), []).append(one)
        if len(found) <= room:
            return [(name, *_numbers(some), _states(some)) for name, some in found.items()]
    return _spread(members)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The smallest, median and largest."""
    return min(values), statistics.median(values), max(values)


def _head(title: str, share: float | None, told: Sequence[str]) -> RenderableType:
    head = Table.grid(padding=(0, 2))
    head.add_column(no_wrap=True, max_width=TITLE, overflow="ellipsis")
    bar = [ProgressBar(total=1, completed=share, width=BAR)] if share is not None else []
    head.add_row(Text(title, style="bold"), *bar, *map(_line, told))
    return head


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _table(found: Sequence[tuple[str, str, str, str]]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("member", no_wrap=True, overflow="ellipsis", ratio=1)
    for title in ("L0", "FVU"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True, overflow="ellipsis")
    for row in found:
        table.add_row(*map(Text, row))
    return table


def _numbers(members: Sequence[Shown]) -> tuple[str, str]:
    """Medians of L0 and FVU, as far as members have some."""
    known = [one.values for one in members if one.values is not None]
    if not known:
        return "-", "-"
    l0, fvu = (statistics.median(values) for values in zip(*known, strict=True))
    return f"{l0:.1f}", f"{fvu:.3f}"


def _states(members: Sequence[Shown]) -> str:
    counted = Counter(one.state for one in members).most_common()
    return ", ".join(f"{number} {state}" for state, number in counted)


def _spread(members: Sequence[Shown]) -> list[tuple[str, str, str, str]]:
    known = [one.values for one in members if one.values is not None]
    if not known:
        return [(f"{len(members)} members", "-", "-", _states(members))]
    l0s, fvus = (spread(values) for values in zip(*known, strict=True))
    names = [f"{word} of {len(known)} members" for word in ("min", "median", "max")]
    states = [_states(members), "", ""]
    found = zip(names, l0s, fvus, states, strict=True)
    return [(name, f"{l0:.1f}", f"{fvu:.3f}", state) for name, l0, fvu, state in found]
