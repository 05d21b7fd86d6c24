"""How long what is left of a command will take: each kind of work by the rate that was measured of it."""

from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic

from sae_sweep.tracking.workload import Kind, Steps, Workload


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


class Reckoning:
    """What is done of the passes of a command, how fast each kind of work went, and how long the rest will take.

    It is told how much is done, and takes the time since it was told something for what that took.
    """

    def __init__(self) -> None:
        self._passes: list[Workload] = []
        """The one that is under way and those after it."""
        self._paces = {kind: Pace() for kind in Kind}
        self._trained = Pace()
        """Tokens of steps: what they take is known better in operations, and told in tokens."""
        self._shares = dict.fromkeys((Kind.MODEL, Kind.JUDGING), 0.0)
        """Of the work of each of these kinds in this pass, what is done."""
        self._steps = Steps({})
        self._round = 0
        """How often members were judged on the way."""
        self._model_runs = False
        self._told: float | None = None
        """When something was told of work; None where what came since is no work that comes again."""

    def expect(self, passes: Sequence[Workload]) -> None:
        """What there is to do."""
        self._passes = list(passes)
        self._steps = Steps(self._passes[0].members if self._passes else {})
        self._shares, self._round = dict.fromkeys(self._shares, 0.0), 0

    def begin(self, steps: Mapping[str, int], blocks_done: int) -> None:
        """Training of the members of a pass begins, or goes on from these steps."""
        self._steps.told(steps, {})
        if blocks_done and self._passes:
            self._shares[Kind.MODEL] = min(1.0, blocks_done / self.blocks)
        self.pause()

    def end(self) -> bool:
        """The pass is over; whether there is another one. What is known of the last one stays."""
        more = len(self._passes) > 1
        if more:
            self.expect(self._passes[1:])
        return more

    def pause(self) -> None:
        """What is done now is done once, and is no work to go by."""
        self._told = None

    def read(self, block: int, share: float, *, by_model: bool) -> None:
        """How much of a block has been read, by a model that was waited for or from wherever it was."""
        self._model_runs |= by_model and share > 0
        if self._passes:
            self._reached(Kind.MODEL, max(self._shares[Kind.MODEL], min(1.0, (block + share) / self.blocks)))

    def train(self, steps: Mapping[str, int], l0s: Mapping[str, float]) -> None:
        """Steps that members have taken, and L0s of those that have new ones, by label."""
        before = self.tokens
        work = self._steps.told(steps, l0s)
        if (gained := self.tokens - before) > 0 and self._told is not None:
            self._trained.add(monotonic() - self._told, gained)
        self._done(Kind.STEPS, work)

    def judge(self, share: float, *, last: bool) -> None:
        """How much of an evaluation is done, from 0 to 1: one on the way, or the last one."""
        rounds = self._passes[0].judgements if self._passes else 1
        before = rounds - 1 if last else min(self._round, rounds - 1)
        self._reached(Kind.JUDGING, min(1.0, (before + share) / rounds))
        self._round += share == 1

    def give_up(self, label: str) -> None:
        """A member takes no more steps."""
        self._steps.give_up(label)

    @property
    def blocks(self) -> int:
        """Of the pass."""
        return self._passes[0].blocks if self._passes else 1

    @property
    def begun(self) -> bool:
        """Whether something has been read."""
        return bool(self._passes) and self._shares[Kind.MODEL] > 0

    @property
    def tokens(self) -> float:
        """That a member of the pass has consumed, on average."""
        return self._steps.tokens

    @property
    def all_tokens(self) -> float:
        """That it will have, at the end."""
        return self._passes[0].tokens if self._passes else 0.0

    @property
    def share(self) -> float:
        """Of its tokens that it has consumed."""
        return min(1.0, self.tokens / max(1.0, self.all_tokens))

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
    def rates(self) -> dict[Kind, float]:
        """Tokens a second of the model and of members' steps, as far as they are known."""
        found = {}
        if self._passes and (rate := self._paces[Kind.MODEL].rate) is not None:
            found[Kind.MODEL] = rate * self._passes[0].read / self._passes[0].flops[Kind.MODEL]
        if self._passes and (rate := self._trained.rate) is not None:
            found[Kind.STEPS] = rate
        return found

    def _reached(self, kind: Kind, share: float) -> None:
        """So much of what there is of a kind of work is done."""
        gained, self._shares[kind] = share - self._shares[kind], share
        self._done(kind, gained * self._passes[0].flops[kind] if self._passes else 0.0)

    def _done(self, kind: Kind, work: float) -> None:
        """So many operations of one kind were done since something was told."""
        now = monotonic()
        if self._told is not None and work > 0 and self._passes:
            self._paces[kind].add(now - self._told, work)
        self._told = now
