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
from sae_sweep.tracking.pace import Kind, Pace, Workload

LIVE_SECONDS = 0.5
PLAIN_SECONDS = 15.0
FEW_MEMBERS = 3
"""A plain line names at most this many members; of more it gives the smallest, median and largest."""


class Progress:
    """Progress of the passes of one command, as a context manager.

    It is told how much of each kind of work is done, and takes the time since it was told something for what that took.
    `update` may be called at every step: it shows something at most every half second (terminal) or 15 s. `due` tells
    when the next one will, so that L0 and FVU need not be brought from the device for the others.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._title = title
        self._passes: list[Workload] = []
        """The one that is under way and those after it."""
        self._paces = {kind: Pace() for kind in Kind}
        self._shares = dict.fromkeys(Kind, 0.0)
        """Of the work of each kind in this pass, what is done."""
        self._round = 0
        """How often members were judged on the way."""
        self._told: float | None = None
        """When something was told of work; None where what came since is no work that comes again."""
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
        self._passes = list(passes)

    def begin(self, places: Mapping[str, Place], tokens_done: int, blocks_done: int) -> None:
        """Training of the members of a pass begins, or goes on; where each belongs, by label."""
        self._places, self._states, self._values = dict(places), dict.fromkeys(places, "training"), {}
        self._shares[Kind.STEPS] = self._share_of(tokens_done)
        if blocks_done and self._passes:
            self._shares[Kind.MODEL] = min(1.0, blocks_done / self._passes[0].blocks)
        self._told = None

    def end(self) -> None:
        """The pass is over, or is not to be had. What is said of the last one stays."""
        self._show()
        if len(self._passes) > 1:
            del self._passes[0]
            self._states, self._shares, self._round = {}, dict.fromkeys(Kind, 0.0), 0

    @property
    def due(self) -> bool:
        """Whether the next `update` will be shown."""
        return monotonic() >= self._next

    def stage(self, doing: str) -> None:
        """What is done that is done once: loading a model, say. It is shown at once, and is no work to go by."""
        self._told = None
        if doing != self._doing:
            self._doing = doing
            if self._live is not None:
                self._live.refresh()
            elif not self._console.is_terminal:
                self.message(f"{self._title}: {doing}")

    def read(self, block: int, share: float) -> None:
        """How much of a block the model has read, which this thread waits for; what others read ahead costs nothing."""
        if get_ident() != self._thread or not self._passes:
            return
        blocks = self._passes[0].blocks
        done = max(self._shares[Kind.MODEL], min(1.0, (block + share) / blocks))
        self._done(Kind.MODEL, done, f"reading block {block + 1} of {blocks}, {share:.0%}")

    def update(self, tokens_done: int, members: Mapping[str, tuple[float, float]]) -> None:
        """Tokens that members have consumed, on average, and (L0, FVU) of those that have new ones."""
        self._values.update(members)
        self._done(Kind.STEPS, self._share_of(tokens_done), self._place)

    def judging(self, share: float, members: int, *, last: bool = True) -> None:
        """How much of the held-out tokens so many members have been judged on, from 0 to 1; on the way, or at last."""
        rounds = self._passes[0].judgements if self._passes else 1
        done = rounds - 1 if last else min(self._round, rounds - 1)
        self._done(
            Kind.JUDGING,
            min(1.0, (done + share) / rounds),
            f"judging {members} member{'s' * (members != 1)}, {share:.0%}",
        )
        if last and share == 0:
            self._states = {label: was if was != "training" else "judging" for label, was in self._states.items()}
        if last and share in (0, 1):
            self._show_until(monotonic() + self._every)
        self._round += share == 1

    def place(self, epoch: int, block: int) -> None:
        """Where in the stream members are trained, both from 0."""
        self._place = self._doing = f"epoch {epoch}  block {block}"

    def state(self, label: str, state: str) -> None:
        """What a member is doing: training, judging, finished, failed."""
        self._states[label] = state

    def message(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """Progress in one line."""
        return "  ".join([*self._parts(), *([self._doing] if self._doing else []), *self._member_parts()])

    def _parts(self) -> list[str]:
        total = self._passes[0].tokens if self._passes else 0
        done = self._shares[Kind.STEPS] * total
        parts = [f"{self._shares[Kind.STEPS]:.0%} {count(round(done))}/{count(round(total))} tokens"]
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
        """Seconds of work that are left, in this pass and those after it; None while nobody knows. A kind that was not
        measured is taken to go as fast as one that was: all are matrix products before anything else."""
        rates = {kind: pace.rate for kind, pace in self._paces.items()}
        known = next((rate for rate in rates.values() if rate), None)
        if known is None:
            return None
        left = 0.0
        for number, one in enumerate(self._passes):
            for kind, flops in one.flops.items():
                left += flops * (1 - self._shares[kind] * (number == 0)) / (rates[kind] or known)
        return left

    @property
    def doing(self) -> str:
        """Where in the stream the group is, or that it is judging."""
        return self._doing

    @property
    def rates(self) -> dict[Kind, float]:
        """Tokens a second of the model and of members' steps, as far as they are known."""
        found = {}
        for kind, tokens in self._passes[0].of_kind.items() if self._passes else ():
            if (rate := self._paces[kind].rate) is not None:
                found[kind] = rate * tokens / self._passes[0].flops[kind]
        return found

    def _share_of(self, tokens: int) -> float:
        return min(1.0, tokens / max(1.0, self._passes[0].tokens)) if self._passes else 0.0

    def _done(self, kind: Kind, share: float, doing: str = "") -> None:
        """So much of one kind of work is done: note what it took, and show it now and then."""
        now, gained = monotonic(), share - self._shares[kind]
        if self._told is not None and gained > 0 and self._passes:
            self._paces[kind].add(now - self._told, gained * self._passes[0].flops[kind])
        self._told, self._shares[kind] = now, share
        self._doing = doing or self._doing
        if now >= self._next:
            self._show_until(now + self._every)

    def _show_until(self, moment: float) -> None:
        self._next = moment
        self._show()

    def _show(self) -> None:
        if self._live is not None:
            self._live.refresh()
            return
        line, begun = self.line(), bool(self._states) or self._shares[Kind.MODEL] > 0
        if self._passes and begun and line != self._shown and not self._console.is_terminal:
            self._shown = line
            self.message(line)

    def _render(self) -> Group:
        share = self._shares[Kind.STEPS] if self._states else None
        members = [
            Shown(label, self._places[label], state, self._values.get(label)) for label, state in self._states.items()
        ]
        told = self._parts() if self._states else []
        return screen(self._title, share, told, self._doing, members, self._console.height)


def quiet() -> Progress:
    """Progress that nobody is shown."""
    return Progress("", Console(quiet=True))
