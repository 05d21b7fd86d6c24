"""How far a group is: a live display on a terminal, a plain line now and then elsewhere."""

import statistics
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sae_sweep.config.values import count

LIVE_SECONDS = 0.5
PLAIN_SECONDS = 15.0
RATE_SECONDS = 60.0
"""The rate is that of the last minute, so that an evaluation or a slow start does not linger in the ETA."""
FEW_MEMBERS = 3
"""A plain line names at most this many members; of more it gives the smallest, median and largest."""


class Progress:
    """Progress of one group, as a context manager.

    `update` may be called at every step: it shows something at most every half second (terminal) or 15 s. `due` tells
    when the next one will, so that L0 and loss need not be brought from the device for the others.
    """

    def __init__(
        self, title: str, total_tokens: int, labels: Sequence[str], done_tokens: int, console: Console | None = None
    ) -> None:
        self._console = console or Console(stderr=True)
        self._title = title
        self._total = max(total_tokens, 1)
        self._tokens = done_tokens
        self._states = dict.fromkeys(labels, "training")
        self._values: dict[str, tuple[float, float]] = {}
        self._place = ""
        self._samples: deque[tuple[float, int]] = deque([(monotonic(), done_tokens)])
        self._every = LIVE_SECONDS if self._console.is_terminal else PLAIN_SECONDS
        self._next = 0.0
        self._shown = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, get_renderable=self._render)
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def due(self) -> bool:
        """Whether the next `update` will be shown."""
        return monotonic() >= self._next

    def update(self, tokens_done: int, members: Mapping[str, tuple[float, float]]) -> None:
        """Tokens the group has consumed, and (L0, loss) of the members that have new ones."""
        self._tokens = tokens_done
        self._values.update(members)
        now = monotonic()
        if now < self._next:
            return
        self._samples.append((now, tokens_done))
        while len(self._samples) > 2 and now - self._samples[0][0] > RATE_SECONDS:
            self._samples.popleft()
        self._show_until(now + self._every)

    def judging(self, share: float) -> None:
        """How much of the held-out tokens the members have been judged on, from 0 to 1."""
        self._place = f"judging {share:.0%}"
        now = monotonic()
        if now >= self._next or share == 1:
            self._show_until(now + self._every)

    def place(self, epoch: int, block: int) -> None:
        """Where the stream is, both from 0."""
        self._place = f"epoch {epoch}  block {block}"

    def state(self, label: str, state: str) -> None:
        """What a member is doing: training, evaluating, finished, failed."""
        self._states[label] = state

    def message(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """Progress in one line."""
        share = min(self._tokens / self._total, 1.0)
        parts = [f"{share:.0%} {count(self._tokens)}/{count(self._total)} tokens"]
        rate, eta = self._rate(), self.eta
        if eta is not None:
            parts += [f"{count(rate)} tok/s", f"ETA {duration(eta)}"]
        if self._place:
            parts.append(self._place)
        return "  ".join([*parts, *self._member_parts()])

    def _member_parts(self) -> list[str]:
        if len(self._values) <= FEW_MEMBERS:
            return [f"{label} l0={l0:.1f} loss={loss:.3g}" for label, (l0, loss) in self._values.items()]
        l0s, losses = zip(*self._values.values(), strict=True)
        return [
            f"{len(self._values)} members (min/median/max)",
            "l0=" + "/".join(f"{value:.1f}" for value in _spread(l0s)),
            "loss=" + "/".join(f"{value:.3g}" for value in _spread(losses)),
        ]

    @property
    def eta(self) -> float | None:
        """Seconds of training that are left; None while nobody knows."""
        rate = self._rate()
        return max(self._total - self._tokens, 0) / rate if rate else None

    @property
    def doing(self) -> str:
        """Where in the stream the group is, or that it is judging."""
        return self._place

    def _rate(self) -> float:
        (start, first), (end, last) = self._samples[0], self._samples[-1]
        return (last - first) / (end - start) if end > start else 0.0

    def _show_until(self, moment: float) -> None:
        self._next = moment
        self._show()

    def _show(self) -> None:
        if self._live is not None:
            self._live.refresh()
            return
        line = self.line()
        if line != self._shown and not self._console.is_terminal:
            self._shown = line
            self.message(line)

    def _render(self) -> Group:
        rate = self._rate()
        eta = "-" if self.eta is None else duration(self.eta)
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(self._title, style="bold"),
            ProgressBar(total=self._total, completed=min(self._tokens, self._total), width=30),
            f"{min(self._tokens / self._total, 1.0):.0%}",
            f"{count(self._tokens)}/{count(self._total)} tokens",
            f"{count(rate)} activations/s",
            f"ETA {eta}",
            self._place,
        )
        return Group(head, self._member_table())

    def _member_table(self) -> Table:
        table = Table(box=None, header_style="dim", pad_edge=False)
        table.add_column("member")
        for title in ("L0", "loss"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("state")
        if len(self._states) > self._console.height - 4:
            self._add_spread(table)
            return table
        for label, state in self._states.items():
            l0, loss = self._values.get(label, (None, None))
            table.add_row(label, "-" if l0 is None else f"{l0:.1f}", "-" if loss is None else f"{loss:.4g}", state)
        return table

    def _add_spread(self, table: Table) -> None:
        """Three rows for more members than the terminal has lines."""
        states = ", ".join(f"{number} {state}" for state, number in Counter(self._states.values()).most_common())
        if not self._values:
            table.add_row(f"{len(self._states)} members", "-", "-", states)
            return
        l0s, losses = zip(*self._values.values(), strict=True)
        for name, l0, loss in zip(("min", "median", "max"), _spread(l0s), _spread(losses), strict=True):
            table.add_row(f"{name} of {len(self._values)} members", f"{l0:.1f}", f"{loss:.4g}", states)
            states = ""


def duration(seconds: float) -> str:
    """Seconds as 45s, 4m10s or 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)
