"""`sae-sweep show DIR [--format table|csv|json|latex|png|svg] [--out FILE]`: a sweep's frontier, in one's terminal or
one's paper. Nothing in the sweep's folder is written."""

import csv
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sae_sweep.config.command_line import one_option, split_options
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.metrics import METRICS, TERMINAL
from sae_sweep.folder.files import replacing, write_text_atomic
from sae_sweep.host.terminal import tell
from sae_sweep.reporting.axes import controls_of
from sae_sweep.reporting.cell import cell_title
from sae_sweep.reporting.pareto import cells, pareto_json
from sae_sweep.reporting.picture import picture
from sae_sweep.reporting.points import FACTS, SweepRecord, read_sweep
from sae_sweep.reporting.raster import rasterised
from sae_sweep.reporting.report import print_cell
from sae_sweep.reporting.table import columns, frontier_marks, in_order

Cells = Sequence[Mapping[str, Any]]
_LITERAL = "&%$#_{}"
_NAMED = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
TEX = str.maketrans(_NAMED | {character: f"\\{character}" for character in _LITERAL})


def show(folder: Path, arguments: Sequence[str]) -> None:
    """Do what the command line says. Raises ConfigError for a form that there is not, and for a sweep without members
    where a picture is asked for."""
    words, options = split_options("show", arguments, ("format", "out"))
    form = one_option("show", options, "format", "table")
    out = Path(one_option("show", options, "out")).expanduser() if "out" in options else None
    if words:
        raise ConfigError(f"show: {words[0]} is no option; give --format or --out")
    if form not in (*TEXTS, "table", "png"):
        raise ConfigError(f"show: --format={form} is not one of table, {', '.join(TEXTS)}, png")
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"show: --out={out}: no such folder here")
    record = read_sweep(folder)
    for note in record.notes:
        tell(note, sys.stderr)
    found = cells(record.points)
    if form == "png":
        _png(found, record, out)
    elif form == "table":
        _table(found, out)
    else:
        _put(TEXTS[form](found, record), out)


def _put(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text)
    else:
        write_text_atomic(out, text)


def _table(found: Cells, out: Path | None) -> None:
    file = None if out is None else io.StringIO()
    for cell in found:
        print_cell(cell, Console(file=file))
    if file is not None:
        _put(file.getvalue(), out)


def _csv(found: Cells, record: SweepRecord) -> str:
    """A row for each member: its cell, what it is, every metric, whether it is on a frontier."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = [*FACTS, *METRICS]
    writer.writerow(["cell", *keys, "frontier"])
    for cell in found:
        marks = frontier_marks(cell)
        for point in in_order(cell["points"]):
            own = ["" if point[key] is None else point[key] for key in keys]
            writer.writerow([cell_title(cell["key"]), *own, marks.get(point["member"], "")])
    return text.getvalue()


def _json(found: Cells, record: SweepRecord) -> str:
    return json.dumps(pareto_json(found), indent=1, allow_nan=False) + "\n"


def _latex(found: Cells, record: SweepRecord) -> str:
    """A booktabs table for each cell; members on the cell's frontier are bold."""
    return "\n".join(_latex_table(cell) for cell in found)


def _latex_table(cell: Mapping[str, Any]) -> str:
    metrics, best = columns([cell], TERMINAL), set(cell["frontiers"]["overall"])
    heads = " & ".join(text.translate(TEX) for text in ("member", *(metric.title for metric in metrics)))
    lines = [
        f"% {cell_title(cell['key'])}",
        rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
        r"\toprule",
        rf"{heads} \\",
        r"\midrule",
    ]
    for point in in_order(cell["points"]):
        name = point["member"].translate(TEX)
        first = rf"\textbf{{{name}}}" if point["member"] in best else name
        lines.append(" & ".join([first, *(metric.text(point).translate(TEX) for metric in metrics)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _svg(found: Cells, record: SweepRecord) -> str:
    return picture(_one(found), controls_of(record))


def _png(found: Cells, record: SweepRecord, out: Path | None) -> None:
    if out is None:
        raise ConfigError("show: --format=png is no text; give --out FILE.png")
    image = rasterised(_svg(found, record))
    with replacing(out) as temporary:
        temporary.write_bytes(image)


def _one(found: Cells) -> Mapping[str, Any]:
    """The cell that a picture is of."""
    if not found:
        raise ConfigError("show: no finished member yet, so there is nothing to draw")
    if len(found) > 1:
        print(f"sae-sweep: the picture is of {cell_title(found[0]['key'])}, first of {len(found)}", file=sys.stderr)
    return found[0]


TEXTS: Mapping[str, Callable[[Cells, SweepRecord], str]] = {
    "csv": _csv,
    "json": _json,
    "latex": _latex,
    "svg": _svg,
}
