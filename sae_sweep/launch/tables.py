"""What people are told: lines on standard error, and tables: rich on a terminal, aligned plain text elsewhere."""

import sys
from collections.abc import Sequence
from shutil import get_terminal_size
from typing import TextIO

from sae_sweep.host.terminal import escaped

BETWEEN, LAST = 3, 20
"""Characters between columns that are drawn, and that the last one needs, which may be folded."""


def say(text: str) -> None:
    """Print a line to standard error."""
    print(f"sae-sweep: {escaped(text)}", file=sys.stderr, flush=True)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], file: TextIO, spare: int = 0) -> None:
    """Print the rows under their header. A terminal that has no room for them goes without the `spare` columns that
    follow the first."""
    title, rows = escaped(title), [[escaped(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    if file.isatty():
        if spare and sum(width + BETWEEN for width in widths[:-1]) + LAST > get_terminal_size().columns:
            header, *rows = ([*row[:1], *row[1 + spare :]] for row in (header, *rows))
        _print_rich(title, header, rows, file)
        return
    print(title, file=file)
    for row in (header, *rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), file=file)


def _print_rich(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], file: TextIO) -> None:
    from rich.console import Console  # slow to import, and not needed where there is no terminal
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(file=file).print(table)
