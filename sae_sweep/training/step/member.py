"""Where one member is in its run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sae_sweep.plan.members import Member

DEAD_WINDOW_TOKENS = 10_000_000
"""A latent is dead when it has not fired for this many tokens, or a quarter of the run where that is less."""


@dataclass
class MemberState:
    """Where one member is; its tensors are in the bank."""

    member: Member
    coefficient_unit: float
    """Coefficient optimised = coefficient in the config's unit x this."""
    step: int = 0
    blocks: int = 0
    """Blocks it has seen, the one it is in among them."""
    batches: int = 0
    """Batches of that one that it has taken."""
    dense: bool = True
    failed: str | None = None

    @property
    def standing(self) -> dict[str, Any]:
        """All of it that steps change."""
        return {name: value for name, value in vars(self).items() if name not in ("member", "coefficient_unit")}

    def stand(self, standing: Mapping[str, Any]) -> None:
        """Be where another process says that the member is."""
        vars(self).update(standing)

    @property
    def running(self) -> bool:
        return self.failed is None and self.step < self.member.schedule.total_steps

    @property
    def tokens(self) -> int:
        return self.step * self.member.config.training.batch_size

    @property
    def at_milestone(self) -> bool:
        return self.failed is None and bool(self.member.schedule.milestones_at(self.step))

    @property
    def dead_window_tokens(self) -> int:
        return min(DEAD_WINDOW_TOKENS, max(1, int(self.member.config.training.tokens) // 4))

    @property
    def dead_steps(self) -> int:
        """Steps without firing after which the maths may treat a latent as dead; at most a quarter of the run."""
        config = self.member.config
        most = max(1, self.member.schedule.total_steps // 4)
        tokens = min(config.sae.dead_after(), most * config.training.batch_size)
        return max(1, int(tokens) // config.training.batch_size)
