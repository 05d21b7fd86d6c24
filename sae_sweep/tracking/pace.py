"""How long what is left of a command will take: each kind of work by the rate that was measured of it."""

from collections import deque


class Pace:
    """How fast one kind of work goes: over the later half of the time that it took, since first steps are slow."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, float]] = deque([(0.0, 0.0)])
        """Seconds and work by then."""

    def add(self, seconds: float, work: float) -> None:
        """So much more work took so many more seconds."""
        spent, done = self._marks[-1]
        self._marks.append((spent + seconds, done + work))
        while len(self._marks) > 2 and self._marks[1][0] <= self._marks[-1][0] / 2:
            self._marks.popleft()

    @property
    def rate(self) -> float | None:
        """Work a second; None while nobody knows."""
        (start, first), (end, last) = self._marks[0], self._marks[-1]
        return (last - first) / (end - start) if end > start and last > first else None
