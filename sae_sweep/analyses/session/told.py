"""How far analyses are: a bar on a terminal, a plain line now and then elsewhere."""

from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from sae_sweep.config.values import duration
from sae_sweep.tracking.progress import PLAIN_SECONDS


class Told:
    """Shows what is done of one piece of work after another, as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(20),
            TextColumn("{task.percentage:.0f}%"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=1.0)
        self._doing = ""
        self._begun = self._next = monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, doing: str, done: int, total: int) -> None:
        """So many of so many are done of something."""
        now = monotonic()
        if doing != self._doing:
            self._doing, self._begun, self._next = doing, now, now + PLAIN_SECONDS
            self._bar.reset(self._task, description=doing)
        self._bar.update(self._task, completed=done, total=max(1, total))
        if not self._console.is_terminal and now >= self._next:
            self._next = now + PLAIN_SECONDS
            self._console.print(self._line(now, done, total), markup=False, highlight=False, soft_wrap=True)

    def _line(self, now: float, done: int, total: int) -> str:
        left = f"  ETA {duration((now - self._begun) / done * (total - done))}" if done else ""
        return f"{self._doing}: {done} of {total}{left}"


def unseen() -> Told:
    """Progress that nobody is shown."""
    return Told(Console(quiet=True))
