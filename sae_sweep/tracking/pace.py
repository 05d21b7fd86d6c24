"""How long what is left of a command will take: each kind of work by the rate that was measured of it."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sae_sweep.plan.costs import pass_cost
from sae_sweep.plan.placement import Pass


class Kind(StrEnum):
    """Of work, in the words of the display."""

    MODEL = "model"
    STEPS = "SAEs"
    JUDGING = "judging"


@dataclass(frozen=True)
class Workload:
    """What a pass has to do."""

    flops: Mapping[Kind, float]
    """Operations, near enough that those of one kind can be compared; of synthetic data, numbers of activations."""
    blocks: int
    """That are read."""
    judgements: int
    """How often members are judged."""
    tokens: float
    """That a member is trained on, on average."""
    read: float
    """Tokens that the model reads for that."""

    @property
    def of_kind(self) -> dict[Kind, float]:
        """Tokens by the kind of work that they are a measure of."""
        return {Kind.MODEL: self.read, Kind.STEPS: self.tokens}


def workload(made: Pass) -> Workload:
    """What a pass has to do, by what its plan says that it costs."""
    cost, members = pass_cost(made), made.group.members
    model, splicing, judging, dense = (
        sum(getattr(device, f"{kind}_flops") for device in cost.devices)
        for kind in ("harvest", "splicing", "judging", "dense")
    )
    flops = {
        Kind.MODEL: max(model, cost.tokens),
        Kind.STEPS: splicing + dense,
        Kind.JUDGING: max(judging, members[0].config.evaluation.tokens),
    }
    tokens = sum(int(member.config.training.tokens) for member in members) / len(members)
    return Workload(flops, cost.blocks, cost.judgements, tokens, cost.tokens)


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
