"""What people are told: lines on standard error, and tables: rich on a terminal, aligned plain text elsewhere."""

import sys
from collections.abc import Sequence
from typing import TextIO

from sae_sweep.host.terminal import escaped


def say(text: str) -> None:
    """Print a line to standard error."""
    print(f"sae-sweep: {escaped(text)}", file=sys.stderr, flush=True)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], file: TextIO) -> None:
    """Print the rows under their header."""
    title, rows = escaped(title), [[escaped(cell) for cell in row] for row in rows]
    if file.isatty():
        _print_rich(title, header, rows, file)
        return
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
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
