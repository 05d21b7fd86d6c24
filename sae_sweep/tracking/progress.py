"""How far a group is: a live display on a terminal, a plain line now and then elsewhere."""

from collections.abc import Mapping, Sequence
from threading import get_ident
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live

from sae_sweep.config.values import count, duration
from sae_sweep.tracking.display import Place, Shown, screen, spread
from sae_sweep.tracking.pace import Reckoning
from sae_sweep.tracking.workload import Kind, Workload

LIVE_SECONDS = 0.5
PLAIN_SECONDS = 15.0
FEW_MEMBERS = 3
"""A plain line names at most this many members; of more it gives the smallest, median and largest."""


class Progress:
    """Progress of the passes of one command, as a context manager.

    `update` may be called at every step: it shows something at most every half second (terminal) or 15 s. `due` tells
    when the next one will, so that L0 and FVU need not be brought from the device for the others.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._title = title
        self._reckoning = Reckoning()
        self._thread = get_ident()
        self._places: dict[str, Place] = {}
        self._states: dict[str, str] = {}
        self._values: dict[str, tuple[float, float]] = {}
        self._doing = self._place = ""
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

    def expect(self, passes: Sequence[Workload]) -> None:
        """What there is to do."""
        self._reckoning.expect(passes)

    def begin(self, places: Mapping[str, Place], steps: Mapping[str, int], blocks_done: int) -> None:
        """Training of the members of a pass begins, or goes on; where each belongs and is, by label."""
        self._places, self._states, self._values = dict(places), dict.fromkeys(places, "training"), {}
        self._reckoning.begin(steps, blocks_done)

    def end(self) -> None:
        """The pass is over, or is not to be had. What is said of the last one stays."""
        self._show()
        if self._reckoning.end():
            self._states = {}

    @property
    def due(self) -> bool:
        """Whether the next `update` will be shown."""
        return monotonic() >= self._next

    def stage(self, doing: str) -> None:
        """What is done that is done once: loading a model, say. It is shown at once, and is no work to go by."""
        self._reckoning.pause()
        if doing != self._doing:
            self._doing = doing
            if self._live is not None:
                self._live.refresh()
            elif not self._console.is_terminal:
                self.message(f"{self._title}: {doing}")

    def read(self, block: int, share: float) -> None:
        """How much of a block the model has read, which this thread waits for; what others read ahead costs nothing."""
        if get_ident() == self._thread:
            self._read(block, share, by_model=True)

    def given(self, block: int) -> None:
        """A block is there, wherever it came from: the model, a thread that reads ahead, a cache."""
        self._read(block, 1.0, by_model=False)

    def _read(self, block: int, share: float, *, by_model: bool) -> None:
        self._reckoning.read(block, share, by_model=by_model)
        self._show_now_and_then(f"reading block {block + 1} of {self._reckoning.blocks}, {share:.0%}")

    def update(self, steps: Mapping[str, int], members: Mapping[str, tuple[float, float]]) -> None:
        """Steps that members have taken, by label, and (L0, FVU) of those that have new ones."""
        self._values.update(members)
        self._reckoning.train(steps, {label: l0 for label, (l0, _) in members.items()})
        self._show_now_and_then(self._place)

    def judging(self, share: float, members: int, *, last: bool = True) -> None:
        """How much of the held-out tokens so many members have been judged on, from 0 to 1; on the way, or at last."""
        self._reckoning.judge(share, last=last)
        self._show_now_and_then(f"judging {members} member{'s' * (members != 1)}, {share:.0%}")
        if last and share == 0:
            self._states = {label: was if was != "training" else "judging" for label, was in self._states.items()}
        if last and share in (0, 1):
            self._show_until(monotonic() + self._every)

    def place(self, epoch: int, block: int) -> None:
        """Where in the stream members are trained, both from 0."""
        self._place = self._doing = f"epoch {epoch}  block {block}"

    def state(self, label: str, state: str) -> None:
        """What a member is doing: training, judging, finished, failed."""
        self._states[label] = state
        if state == "failed":
            self._reckoning.give_up(label)

    def message(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """Progress in one line."""
        return "  ".join([*self._parts(), *([self._doing] if self._doing else []), *self._member_parts()])

    def _parts(self) -> list[str]:
        done, total = count(round(self._reckoning.tokens)), count(round(self._reckoning.all_tokens))
        parts = [f"{self._reckoning.share:.0%} {done}/{total} tokens"]
        if self.eta is not None:
            parts.append(f"ETA {duration(self.eta)}")
        return [*parts, *(f"{kind} {count(rate)} tok/s" for kind, rate in self.rates.items())]

    def _member_parts(self) -> list[str]:
        if len(self._values) <= FEW_MEMBERS:
            return [f"{label} l0={l0:.1f} fvu={fvu:.3f}" for label, (l0, fvu) in self._values.items()]
        l0s, fvus = zip(*self._values.values(), strict=True)
        return [
            f"{len(self._values)} members (min/median/max)",
            "l0=" + "/".join(f"{value:.1f}" for value in spread(l0s)),
            "fvu=" + "/".join(f"{value:.3f}" for value in spread(fvus)),
        ]

    @property
    def eta(self) -> float | None:
        """Seconds of work that are left, in this pass and those after it; None while nobody knows."""
        return self._reckoning.eta

    @property
    def tokens(self) -> float:
        """That a member of the pass has consumed, on average."""
        return self._reckoning.tokens

    @property
    def doing(self) -> str:
        """Where in the stream the group is, or that it is judging."""
        return self._doing

    @property
    def rates(self) -> dict[Kind, float]:
        """Tokens a second of the model and of members' steps, as far as they are known."""
        return self._reckoning.rates

    def _show_now_and_then(self, doing: str) -> None:
        """Something is done: say so, if the last time is long ago."""
        self._doing = doing or self._doing
        if (now := monotonic()) >= self._next:
            self._show_until(now + self._every)

    def _show_until(self, moment: float) -> None:
        self._next = moment
        self._show()

    def _show(self) -> None:
        if self._live is not None:
            self._live.refresh()
            return
        line, begun = self.line(), bool(self._states) or self._reckoning.begun
        if self._reckoning.all_tokens and begun and line != self._shown and not self._console.is_terminal:
            self._shown = line
            self.message(line)

    def _render(self) -> Group:
        share = self._reckoning.share if self._states else None
        members = [
            Shown(label, self._places[label], state, self._values.get(label)) for label, state in self._states.items()
        ]
        told = self._parts() if self._states else []
        return screen(self._title, share, told, self._doing, members, self._console.height)


def quiet() -> Progress:
    """Progress that nobody is shown."""
    return Progress("", Console(quiet=True))
