"""report.html: one file, with its data and plotly inside, that opens without a network.

What the page draws is in report.js and how it looks in report.css, beside this file.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sae_sweep.config.values import count, number
from sae_sweep.folder.names import CURVES
from sae_sweep.reporting.columns import Column, cell_title, knob, report_columns
from sae_sweep.reporting.curves import read_curves
from sae_sweep.reporting.glossary import (
    FIDELITIES,
    MAPS,
    MODEL_DEFINITIONS,
    MODEL_MEASURES,
    SHARED_DEFINITIONS,
    SHARED_MEASURES,
    TOY_DEFINITIONS,
    TOY_MEASURES,
)
from sae_sweep.reporting.heatmaps import grids
from sae_sweep.reporting.pareto import by_architecture, interpolate
from sae_sweep.reporting.points import Point, SweepRecord, synthetic
from sae_sweep.reporting.table import frontier_marks, in_order


def report_html(folder: Path, record: SweepRecord, cells: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> str:
    """The whole page. Training curves are read from the members' folders."""
    from plotly.offline import get_plotlyjs

    here = Path(__file__).parent
    styles, script = ((here / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    data = {
        "cells": cells,
        "measures": (*MODEL_MEASURES, *TOY_MEASURES, *SHARED_MEASURES),
        "maps": MAPS,
        "grids": [grids(cell) for cell in cells],
        "curves": _curves(folder, record.points),
    }
    sections = [
        _header(record, cells),
        *(_cell_section(index, cell) for index, cell in enumerate(cells)),
        _members_section(cells),
        _curves_section(bool(cells)),
        _unfinished_section(record, notes),
        _definitions(cells),
    ]
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(record.name)}: SAE frontier</title>\n<style>\n{styles}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n"
        f'<script type="application/json" id="data">{_script_json(data)}</script>\n'
        f"<script>{get_plotlyjs() if cells else ''}</script>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _header(record: SweepRecord, cells: Sequence[Mapping[str, Any]]) -> str:
    states = [("finished", len(record.points) + len(record.notes))]
    for state in ("running", "planned", "failed"):
        states.append((state, sum(member["state"] == state for member in record.unfinished)))
    told = ", ".join(f"{number} {state}" for state, number in states if number) or "no members"
    toy = bool(cells) and not any(_of_model(cell) for cell in cells)
    kept = "explains more of the activations" if toy else "keeps more of the model's performance"
    return (
        f"<header><p class=eyebrow>sae-sweep report</p><h1>{escape(record.name)}</h1><p class=lead>Each point is one"
        f" sparse autoencoder: further left it uses fewer latents per token, higher up it {kept}, so"
        " better lies up and to the left, and the lines join each architecture's best.</p>"
        f"<p class=quiet>Members: {told}.</p></header>"
    )


def _cell_section(index: int, cell: Mapping[str, Any]) -> str:
    measures = (*(MODEL_MEASURES if _of_model(cell) else TOY_MEASURES), *SHARED_MEASURES)
    bars = " Bars are ±1 standard error." if _of_model(cell) else ""
    options = "".join(f'<option value="{key}">{escape(title)}</option>' for key, title, _ in measures)
    return (
        f'<section class=cell data-cell="{index}"><h2>{escape(cell_title(cell["key"]))}</h2>{_facts(cell)}{_maps(cell)}'
        "<div class=chart-head><h3>Sparsity and fidelity</h3>"
        f"<label>y axis: <select class=measure>{options}</select></label></div>"
        "<div class='chart frontier' role=img aria-label='Frontier; its numbers are in the table below'></div>"
        f"<p class=quiet>A ring marks members on the frontier of the whole cell.{bars} Lines join "
        f"each architecture's frontier in L0 and {FIDELITIES[cell['fidelity']]}, whichever measure is shown.</p>"
        "<div class=pair><div><h3>Reconstruction bias</h3><div class='chart gamma' role=img aria-label='Gamma against "
        f"L0'></div></div><div>{_matched(cell)}</div></div></section>"
    )


def _facts(cell: Mapping[str, Any]) -> str:
    base, key, made = cell["baselines"], cell["key"], synthetic(cell["key"])
    if made is not None:
        facts = [
            *made.facts(key["evaluation"]["data"]),
            ("Held-out activations", count(cell["tokens"])),
            ("Precision", str(key["dtype"])),
        ]
        return _fact_list(facts)
    facts = [
        ("CE, clean model", _nats(base["ce_clean"])),
        ("CE, zero ablation", _nats(base["ce_zero"])),
        ("CE, mean ablation", _nats(base["ce_mean"])),
        ("Held-out tokens", count(cell["tokens"])),
        ("Positions", str(key["positions"])),
        ("Model precision", str(key["dtype"])),
    ]
    return _fact_list(facts)


def _fact_list(facts: Sequence[tuple[str, str]]) -> str:
    return "<dl class=facts>" + "".join(f"<div><dt>{t}</dt><dd>{escape(v)}</dd></div>" for t, v in facts) + "</dl>"


def _maps(cell: Mapping[str, Any]) -> str:
    """Places for a grid's heat maps, which the script draws: dictionary size against the knob."""
    parts = []
    for index, grid in enumerate(grids(cell)):
        charts = "".join(
            f"<div><h4>{escape(title)}</h4><div class='chart map' data-grid={index} data-map={key} role=img"
            f" aria-label='{escape(title)}; its numbers are in the table below'></div></div>"
            for key, title in MAPS
        )
        title = f"{grid['architecture']}: dictionary size against {grid['knob']}"
        parts.append(f"<h3>{escape(title)}</h3><div class=maps>{charts}</div>")
    if parts:
        parts.append(
            "<p class=quiet>One map for each number; brighter is higher. Latents is the dictionary's size.</p>"
        )
    return "".join(parts)


def _matched(cell: Mapping[str, Any]) -> str:
    """The fidelity of each architecture at the same L0, read off its frontier."""
    curves = by_architecture(cell["points"])
    found = [point["l0"] for point in cell["points"] if point["l0"]]
    levels = [2**power for power in range(20) if found and min(found) <= 2**power <= max(found)]
    rows = []
    for level in levels:
        values = [interpolate(points, level, cell["fidelity"]) for points in curves.values()]
        if any(value is not None for value in values):
            best = max(value for value in values if value is not None)
            rows.append(f"<tr><th scope=row>{level}</th>{''.join(_matched_cell(value, best) for value in values)}</tr>")
    if not rows:
        return ""
    heads = "".join(f"<th scope=col>{escape(name)}</th>" for name in curves)
    return (
        f"<h3>At matched L0: {FIDELITIES[cell['fidelity']]}</h3>"
        f"<div class=scroll><table class=matched><thead><tr><th scope=col>L0</th>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div><p class=quiet>Read off each architecture's "
        "frontier, linear in log L0 between neighbours; – is outside its range; the best is bold.</p>"
    )


def _matched_cell(value: float | None, best: float) -> str:
    if value is None:
        return "<td>–</td>"
    return f"<td class=best>{value:.4f}</td>" if value == best else f"<td>{value:.4f}</td>"


def _members_section(cells: Sequence[Mapping[str, Any]]) -> str:
    if not cells:
        return "<section><h2>Members</h2><p>No member is finished yet.</p></section>"
    several, columns = len(cells) > 1, report_columns(cells)
    heads = [_sort_head("Member", "", False)] + ([_sort_head("Cell", "", False)] if several else [])
    heads += [_sort_head(column.title, column.title_long, True) for column in columns]
    heads += [_sort_head("Frontier", "of the cell, or of its own architecture", False)]
    heads += [_sort_head("Architecture", "", False)]
    heads += [_sort_head(title, "", True) for title in ("Knob", "Width", "lr", "Seed", "Tokens")]
    titles = "".join(heads)
    rows = "".join(_member_rows(cell, columns, several) for cell in cells)
    return (
        "<section><h2>Members</h2><p class=quiet>Click a column to sort.</p><div class=scroll>"
        f"<table class=members><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _member_rows(cell: Mapping[str, Any], columns: Sequence[Column], several: bool) -> str:
    marks = frontier_marks(cell)
    rows = []
    for point in in_order(cell["points"]):
        mark = marks.get(point["member"], "")
        cells = [f"<th scope=row>{escape(point['member'])}</th>"]
        cells += [_cell(cell_title(cell["key"]), None)] if several else []
        cells += [_cell(column.text(point), column.value(point)) for column in columns]
        cells += [_cell(mark, None), _cell(point["architecture"], None), _cell(knob(point), point["knob_value"])]
        cells += [_cell(number(point[key]), point[key]) for key in ("width", "lr", "seed")]
        cells += [_cell(count(point["tokens_trained"]), point["tokens_trained"])]
        rows.append(f'<tr class="{mark}">{"".join(cells)}</tr>')
    return "".join(rows)


def _sort_head(title: str, meaning: str, numeric: bool) -> str:
    kind = " class=number" if numeric else ""
    tip = f' title="{escape(meaning)}"' if meaning else ""
    return f"<th scope=col aria-sort=none{kind}{tip}><button type=button>{escape(title)}</button></th>"


def _cell(text: str, value: float | None) -> str:
    """A table cell; `data-value` is what it is sorted by."""
    sort_by = "" if value is None else f' data-value="{value!r}"'
    kind = "" if value is None and text != "-" else " class=number"
    return f"<td{kind}{sort_by}>{escape(text)}</td>"


def _curves_section(shown: bool) -> str:
    if not shown:
        return ""
    return (
        "<section class=curves><h2>Training</h2><p class=quiet>Click a name to hide or show it, an architecture to"
        " toggle all of its members.</p><div class=legend></div><div class=pair>"
        "<div><h3>L0</h3><div class=chart data-curve=l0></div></div>"
        "<div><h3>Training loss</h3><div class=chart data-curve=loss></div></div></div>"
        "<p class=quiet>Losses of different architectures have different terms; compare a member with itself.</p>"
        "</section>"
    )


def _unfinished_section(record: SweepRecord, notes: Sequence[str]) -> str:
    items = [
        f"<tr><th scope=row>{escape(member['member'])}</th><td>{escape(member['state'])}</td>"
        f"<td class=reason>{escape(member['reason'])}</td></tr>"
        for member in record.unfinished
    ]
    told = "".join(f"<li>{escape(note)}</li>" for note in notes)
    parts = [f"<h2>Notes</h2><ul>{told}</ul>"] if told else []
    if items:
        parts.append(
            "<h2>Not finished</h2><div class=scroll><table class=members><thead><tr><th scope=col>Member</th>"
            f"<th scope=col>State</th><th scope=col>Reason</th></tr></thead><tbody>{''.join(items)}</tbody>"
            "</table></div>"
        )
    return f"<section>{''.join(parts)}</section>" if parts else ""


def _definitions(cells: Sequence[Mapping[str, Any]]) -> str:
    kinds = {_of_model(cell) for cell in cells} or {True}
    told = [*(MODEL_DEFINITIONS if True in kinds else ()), *(TOY_DEFINITIONS if False in kinds else ())]
    entries = "".join(
        f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in (*told, *SHARED_DEFINITIONS)
    )
    return f"<footer><h2>What the numbers mean</h2><dl class=definitions>{entries}</dl></footer>"


def _of_model(cell: Mapping[str, Any]) -> bool:
    return synthetic(cell["key"]) is None


def _curves(folder: Path, points: Iterable[Point]) -> list[dict[str, Any]]:
    return [
        {"member": point["member"], "architecture": point["architecture"]}
        | read_curves(folder / point["member"] / CURVES)
        for point in points
    ]


def _nats(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f} nats"


def _script_json(data: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
