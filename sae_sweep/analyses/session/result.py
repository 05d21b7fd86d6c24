"""What an analysis finds: numbers with their errors, one figure's data, and what is written beside. No torch.

`analyses/<name>.json` of a sweep holds `version`, `analysis`, `config`, `numbers`, `members` and `figure`, as they are
here; that of a member `version`, `analysis`, `config`, `numbers` and `details`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Number:
    """One number that was measured, and what it has to be read against."""

    value: float
    standard_error: float | None
    """None where there are too few observations for one."""
    n: int
    """How many observations it is of."""
    control: float | None = None
    """The same of what has no such structure; None where the analysis has no control."""


@dataclass(frozen=True)
class Series:
    """One curve, cloud of points or row of bars; of a map, one row."""

    name: str
    x: Sequence[float | str]
    """Numbers, or names of bars or of a map's columns; equally many for all series of a map."""
    y: Sequence[float | None]
    """None where there is nothing to draw."""
    error: Sequence[float | None] | None = None
    """Standard errors of y."""
    style: Literal["line", "dashed", "points", "bars"] = "line"
    """dashed is a control's. Not read of a map."""


@dataclass(frozen=True)
class Figure:
    """At most one of an analysis: series over common axes, or a map with a row for each series."""

    title: str
    x: str
    """What the x axis is of, with its unit."""
    y: str
    series: Sequence[Series]
    kind: Literal["chart", "map"] = "chart"
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Result:
    """Numbers of the whole sweep by name, those of each member by its label and name, and what a figure shows."""

    numbers: Mapping[str, Number] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, Number]] = field(default_factory=dict)
    figure: Figure | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """By member: what its own file has besides, in JSON's types."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Texts that are written into `analyses/` of a member or of the sweep, by path from the sweep's folder."""
