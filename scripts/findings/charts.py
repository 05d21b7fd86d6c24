"""One figure for each question: a panel for each model, as an SVG of a few kilobytes."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import floor, log10

from sae_sweep.reporting.picture import CONTROL, PALETTE
from scripts.findings.numbers import Finding, Row

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 340, 310, 62, 40, 44, 14
"""Of a panel: its size, and the room beside, above and below its box; and between two of them."""
GREY = ("random", "raw activations", "by chance")
"""Series that begin so, or end so after a comma, are what others are read against."""


class _Scale:
    """Where values are along one side of a box."""

    def __init__(self, values: Sequence[float], start: float, end: float, logarithmic: bool) -> None:
        self.logarithmic = logarithmic
        places = [self._place(value) for value in values]
        room = 0.08 * (max(places) - min(places)) or 0.5
        self._low, self._high, self._start, self._end = min(places) - room, max(places) + room, start, end

    def _place(self, value: float) -> float:
        return log10(value) if self.logarithmic else value

    def at(self, value: float) -> float:
        """The coordinate of a value; of one beyond the ends, that of the end."""
        share = (self._place(value) - self._low) / (self._high - self._low)
        return self._start + min(1.0, max(0.0, share)) * (self._end - self._start)

    def ticks(self) -> list[float]:
        """A few round numbers between the ends."""
        if self.logarithmic:
            values = [d * 10.0**p for p in range(floor(self._low), floor(self._high) + 1) for d in (1, 2, 5)]
        else:
            power = 10.0 ** floor(log10(self._high - self._low))
            step = next(power * d for d in (0.1, 0.2, 0.5, 1, 2) if (self._high - self._low) / (power * d) < 7)
            values = [round(i * step, 10) for i in range(floor(self._low / step), floor(self._high / step) + 1)]
        return [value for value in values if self._low <= self._place(value) <= self._high]


def chart(panels: Mapping[str, Finding], log_y: bool) -> str:
    """The SVG of one question's findings by model. Numbers of x are on a logarithmic axis, words side by side."""
    series = list(dict.fromkeys(row.series for finding in panels.values() for row in finding.rows))
    looks = _looks(series)
    legend = list(_legend(looks, len(panels) * (WIDTH + GAP)))
    down = max(y for y, _ in legend)
    width, height = len(panels) * (WIDTH + GAP), HEIGHT + round(down)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *(text for _, text in legend),
    ]
    for number, (name, finding) in enumerate(panels.items()):
        left = number * (WIDTH + GAP)
        parts += [f'<g transform="translate({left},{down:.0f})">', *_panel(name, finding, looks, log_y), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _looks(series: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The colour and the dashes of each: what differs from another after a comma has its colour."""
    found: dict[str, tuple[str, str]] = {}
    free, greys = iter(PALETTE), iter(("", "7 4", "2 4"))
    for name in series:
        kind, comma, rest = name.partition(", ")
        if kind in found and comma:
            found[name] = (found[kind][0], "2 4" if rest.startswith("random as") else "7 4")
        elif kind.startswith(GREY) or "at random" in kind:
            found[name] = (CONTROL, next(greys))
        else:
            found[name] = (next(free), "")
    return found


def _panel(name: str, finding: Finding, looks: Mapping[str, tuple[str, str]], log_y: bool) -> Iterator[str]:
    """A box with its axes, and each series as a line through its marks with their errors; side by side where all are at
    one place."""
    names = [x for x in dict.fromkeys(row.x for row in finding.rows) if isinstance(x, str)]
    numbers = [float(row.x) for row in finding.rows if not isinstance(row.x, str)]
    across = _Scale(numbers or [0, len(names) - 1], LEFT, WIDTH - 8, bool(numbers))
    ends = [row.value + sign * (row.error or 0) for row in finding.rows for sign in (-1, 1)]
    up = _Scale([end for end in ends if end > 0 or not log_y], HEIGHT - BOTTOM, TOP, log_y)
    places = {
        row.x: across.at(float(row.x) if not isinstance(row.x, str) else names.index(row.x)) for row in finding.rows
    }
    for value in up.ticks():
        y = up.at(value)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - 8}" y2="{y:.1f}" stroke="#e9ebee"/>'
        yield _text(LEFT - 6, y + 4, f"{value:g}", "end")
    for x, place in places.items():
        yield _text(place, HEIGHT - BOTTOM + 17, x if isinstance(x, str) else f"{x:g}", "middle")
    yield f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - 8}" fill="none" stroke="#9aa0aa"/>'
    yield _text((LEFT + WIDTH) / 2, TOP - 10, name, "middle", bold=True)
    yield _text((LEFT + WIDTH) / 2, HEIGHT - 8, finding.x, "middle")
    yield f'<g transform="rotate(-90)">{_text(-(TOP + HEIGHT - BOTTOM) / 2, 14, finding.y, "middle")}</g>'
    beside = (WIDTH - LEFT) / (len(looks) + 1) if len(places) == 1 else 0.0
    for number, (series, (colour, dashes)) in enumerate(looks.items()):
        own, apart = [row for row in finding.rows if row.series == series], beside * (number - (len(looks) - 1) / 2)
        yield from _series(own, [(places[row.x] + apart, up.at(row.value)) for row in own], up, colour, dashes)


def _series(
    rows: Sequence[Row], at: Sequence[tuple[float, float]], up: _Scale, colour: str, dashes: str
) -> Iterator[str]:
    if len(at) > 1:
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>'
    for row, (x, y) in zip(rows, at, strict=True):
        if row.error:
            low, high = up.at(max(row.value - row.error, 1e-12)), up.at(row.value + row.error)
            yield f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}" stroke-width="2"/>'
        fill = "white" if dashes else colour
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{fill}" stroke="{colour}" stroke-width="1.5">'
        yield f"<title>{escape(f'{row.series}, {row.x}: {row.text}')}</title></circle>"


def _legend(looks: Mapping[str, tuple[str, str]], width: float) -> Iterator[tuple[float, str]]:
    """How far down each entry is, and the entry."""
    x, y = 12.0, 18.0
    for name, (colour, dashes) in looks.items():
        wide = 36 + 6.6 * len(name)
        if x + wide > width and x > 12:
            x, y = 12.0, y + 18
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        line = f'<path d="M{x:.0f} {y - 4:.0f}h20" stroke="{colour}" stroke-width="2.5"{dashed}/>'
        yield y, line + _text(x + 25, y, name, "start")
        x += wide


def _text(x: float, y: float, text: str, anchor: str, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#1c1d20"{weight}>{escape(text)}</text>'
