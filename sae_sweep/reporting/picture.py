"""The frontier of a cell as an SVG, without a browser or plotly: for model cards, and for papers."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import log10
from typing import Any

from sae_sweep.config.values import finite
from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.reporting.axes import colours
from sae_sweep.reporting.pareto import by_architecture
from sae_sweep.reporting.points import Point

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 700, 46, 388
"""The box that points are in."""
PALETTE = (
    *("#0072b2", "#d55e00", "#2e9446", "#c2459b", "#a58600", "#129bb0"),
    *("#6b4fb3", "#8c564b", "#e2608e", "#5a7d00", "#4a5fd0", "#c0392b"),
)
"""Those of report.css on white, in its order."""
CONTROL = "#9aa0aa"


class _Axis:
    """Where values are along one side of the box."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 0.5
        self._low, self._high, self._start, self._end = low - room, high + room, start, end

    def place(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def holds(self, value: float) -> bool:
        return self._low <= value <= self._high

    def ticks(self) -> list[float]:
        """Four to nine round numbers."""
        span = self._high - self._low
        power = 10.0 ** int(log10(span) - (span < 1))
        step = next(power * digit for digit in (0.1, 0.2, 0.5, 1, 2, 5) if span / (power * digit) < 9)
        first = int(self._low / step) - 1
        return [tick for tick in (round((first + i) * step, 12) for i in range(40)) if self.holds(tick)]


def picture(cell: Mapping[str, Any], controls: Iterable[str] = ()) -> str:
    """Fidelity over L0 on a logarithmic axis: a colour and the frontier of each architecture, a ring around members on
    that of all; members that were cut to their L0 are hollow. `controls` are architectures that are drawn in grey."""
    y = METRICS[cell["fidelity"]]
    points = [p for p in cell["points"] if finite(p[y.key]) is not None and (finite(p["l0"]) or 0) > 0]
    across = _Axis([log10(p["l0"]) for p in points] or [0.0, 1.0], LEFT, RIGHT)
    up = _Axis([p[y.key] for p in points] or [0.0, 1.0], BOTTOM, TOP)

    def at(point: Point) -> tuple[float, float]:
        return across.place(log10(point["l0"])), up.place(point[y.key])

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        f' font-size="13" width="{WIDTH}" height="{HEIGHT}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *_grid(across, up),
        _text((LEFT + RIGHT) / 2, HEIGHT - 12, "L0 (active latents per token, log scale)", "middle"),
        f'<g transform="rotate(-90)">{_text(-(TOP + BOTTOM) / 2, 18, y.axis, "middle")}</g>',
    ]
    grey, best = set(controls), set(cell["frontiers"]["overall"])
    groups = by_architecture(points)
    slots = colours([name for name in groups if name not in grey])
    for name, own in groups.items():
        colour = CONTROL if name in grey else PALETTE[slots[name]]
        parts += _members(own, cell["frontiers"].get(name, []), best, colour, y.key, at)
    parts += _legend({name: CONTROL if name in grey else PALETTE[slots[name]] for name in groups})
    return "\n".join([*parts, "</svg>"]) + "\n"


def _members(
    own: Sequence[Point], frontier: Sequence[str], best: set[str], colour: str, y: str, at: Any
) -> Iterable[str]:
    places = {point["member"]: at(point) for point in own}
    line = " ".join(f"{x:.1f},{up:.1f}" for x, up in (places[label] for label in frontier if label in places))
    yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2" stroke-opacity="0.75"/>'
    for point in own:
        x, up = places[point["member"]]
        title = escape(f"{point['member']}: L0 {point['l0']:.3g}, {METRICS[y].title} {point[y]:.4f}")
        look = f'fill="white" stroke="{colour}" stroke-width="2"' if point.get("trimmed") else f'fill="{colour}"'
        yield f'<circle cx="{x:.1f}" cy="{up:.1f}" r="5" {look}><title>{title}</title></circle>'
        if point["member"] in best:
            yield f'<circle cx="{x:.1f}" cy="{up:.1f}" r="9" fill="none" stroke="#5c616b"/>'


def _grid(across: _Axis, up: _Axis) -> Iterable[str]:
    values = [digit * 10.0**power for power in range(-3, 8) for digit in (1, 2, 5)]
    for value in values:
        if across.holds(log10(value)):
            x = across.place(log10(value))
            yield f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{BOTTOM}" stroke="#e9ebee"/>'
            yield _text(x, BOTTOM + 18, f"{value:g}", "middle")
    for value in up.ticks():
        y = up.place(value)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}" stroke="#e9ebee"/>'
        yield _text(LEFT - 8, y + 4, f"{value:g}", "end")


def _legend(colours: Mapping[str, str]) -> Iterable[str]:
    x, y = float(LEFT), 18.0
    for name, colour in colours.items():
        wide = 26 + 7.4 * len(name)
        if x + wide > RIGHT and x > LEFT:
            x, y = float(LEFT), y + 17
        yield f'<path d="M{x:.0f} {y - 4:.0f} h16" stroke="{colour}" stroke-width="3"/>'
        yield _text(x + 21, y, name, "start")
        x += wide


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#1c1d20">{escape(text)}</text>'
