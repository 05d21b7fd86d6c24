"""What an analysis finds: numbers with their errors, and at most one figure's data. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
class Result:
    """Numbers of the whole sweep by name, those of each member by its label and name, and what a figure shows."""

    numbers: Mapping[str, Number] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, Number]] = field(default_factory=dict)
    figure: Mapping[str, Any] | None = None
