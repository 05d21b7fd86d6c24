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
from sae_sweep.tracking.pace import Pace
from sae_sweep.tracking.workload import Kind, Steps, Workload

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
        self._trained = Pace()
        """Tokens of steps: what they take is known better in operations, and told in tokens."""
        self._shares = dict.fromkeys((Kind.MODEL, Kind.JUDGING), 0.0)
        """Of the work of each of these kinds in this pass, what is done."""
        self._steps = Steps({})
        self._model_runs = False
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
        self._steps = Steps(self._passes[0].members if self._passes else {})

    def begin(self, places: Mapping[str, Place], steps: Mapping[str, int], blocks_done: int) -> None:
        """Training of the members of a pass begins, or goes on; where each belongs and is, by label."""
        self._places, self._states, self._values = dict(places), dict.fromkeys(places, "training"), {}
        self._steps.told(steps, {})
        if blocks_done and self._passes:
            self._shares[Kind.MODEL] = min(1.0, blocks_done / self._passes[0].blocks)
        self._told = None

    def end(self) -> None:
        """The pass is over, or is not to be had. What is said of the last one stays."""
        self._show()
        if len(self._passes) > 1:
            self.expect(self._passes[1:])
            self._states, self._shares, self._round = {}, dict.fromkeys(self._shares, 0.0), 0

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
        if get_ident() == self._thread:
            self._model_runs |= share > 0
            self._read(block, share)

    def given(self, block: int) -> None:
        """A block is there, wherever it came from: the model, a thread that reads ahead, a cache."""
        self._read(block, 1.0)

    def _read(self, block: int, share: float) -> None:
        if self._passes:
            blocks = self._passes[0].blocks
            done = max(self._shares[Kind.MODEL], min(1.0, (block + share) / blocks))
            self._share(Kind.MODEL, done, f"reading block {block + 1} of {blocks}, {share:.0%}")

    def update(self, steps: Mapping[str, int], members: Mapping[str, tuple[float, float]]) -> None:
        """Steps that members have taken, by label, and (L0, FVU) of those that have new ones."""
        self._values.update(members)
        before = self.tokens
        work = self._steps.told(steps, {label: l0 for label, (l0, _) in members.items()})
        if (gained := self.tokens - before) > 0 and self._told is not None:
            self._trained.add(monotonic() - self._told, gained)
        self._done(Kind.STEPS, work, self._place)

    def judging(self, share: float, members: int, *, last: bool = True) -> None:
        """How much of the held-out tokens so many members have been judged on, from 0 to 1; on the way, or at last."""
        rounds = self._passes[0].judgements if self._passes else 1
        done = rounds - 1 if last else min(self._round, rounds - 1)
        self._share(
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
        if state == "failed":
            self._steps.give_up(label)

    def message(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """Progress in one line."""
        return "  ".join([*self._parts(), *([self._doing] if self._doing else []), *self._member_parts()])

    def _parts(self) -> list[str]:
        total = self._passes[0].tokens if self._passes else 0
        parts = [f"{self._trained_share:.0%} {count(round(self.tokens))}/{count(round(total))} tokens"]
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
        measured is taken to go as fast as the model, or, where that was not seen to run since activations come from a
        cache, as the slowest that was measured: all are matrix products before anything else."""
        rates = {kind: rate for kind, pace in self._paces.items() if (rate := pace.rate)}
        if not rates:
            return None
        like = rates.get(Kind.MODEL) if self._model_runs else None
        unknown, left = like or min(rates.values()), dict.fromkeys(Kind, 0.0)
        for number, one in enumerate(self._passes):
            left[Kind.STEPS] += (Steps(one.members) if number else self._steps).left
            for kind, flops in one.flops.items():
                left[kind] += flops * (1 - self._shares[kind] * (number == 0))
        return sum(flops / rates.get(kind, unknown) for kind, flops in left.items())

    @property
    def tokens(self) -> float:
        """That a member of the pass has consumed, on average."""
        return self._steps.tokens

    @property
    def doing(self) -> str:
        """Where in the stream the group is, or that it is judging."""
        return self._doing

    @property
    def rates(self) -> dict[Kind, float]:
        """Tokens a second of the model and of members' steps, as far as they are known."""
        found = {}
        if self._passes and (rate := self._paces[Kind.MODEL].rate) is not None:
            found[Kind.MODEL] = rate * self._passes[0].read / self._passes[0].flops[Kind.MODEL]
        if self._passes and (rate := self._trained.rate) is not None:
            found[Kind.STEPS] = rate
        return found

    @property
    def _trained_share(self) -> float:
        return min(1.0, self.tokens / max(1.0, self._passes[0].tokens)) if self._passes else 0.0

    def _share(self, kind: Kind, share: float, doing: str) -> None:
        """So much of what there is of a kind of work is done."""
        gained, self._shares[kind] = share - self._shares[kind], share
        self._done(kind, gained * self._passes[0].flops[kind] if self._passes else 0.0, doing)

    def _done(self, kind: Kind, work: float, doing: str = "") -> None:
        """So many operations of one kind were done since something was told: note what they took, and show it now and
        then."""
        now = monotonic()
        if self._told is not None and work > 0 and self._passes:
            self._paces[kind].add(now - self._told, work)
        self._told = now
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
        share = self._trained_share if self._states else None
        members = [
            Shown(label, self._places[label], state, self._values.get(label)) for label, state in self._states.items()
        ]
        told = self._parts() if self._states else []
        return screen(self._title, share, told, self._doing, members, self._console.height)


def quiet() -> Progress:
    """Progress that nobody is shown."""
    return Progress("", Console(quiet=True))
