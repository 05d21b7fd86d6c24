"""Milestones: at which steps a member is kept as it is then, for studying training itself. No torch here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil

from sae_sweep.config.schema import TrainingConfig

LOG = "log:"


@dataclass(frozen=True)
class Milestone:
    """One snapshot that a member leaves on its way."""

    tokens: int
    """Training tokens asked for: the name of its folder."""
    step: int
    """After this many steps it is reached: the first that make so many tokens, or the last of the run."""


def resolve_milestones(training: TrainingConfig, total_steps: int) -> tuple[Milestone, ...]:
    """A member's milestones in their order.

    `log:n` spaces n of them evenly in the logarithm of steps, from the first step towards the run's end, which the
    finished member is itself. Those of a short run that fall together are one.
    """
    asked, batch = training.milestones, training.batch_size
    if asked is None:
        return ()
    if isinstance(asked, str):
        count = int(asked.removeprefix(LOG))
        steps = sorted({round(total_steps ** (i / count)) for i in range(count)} - {total_steps})
        return tuple(Milestone(step * batch, step) for step in steps)
    return tuple(Milestone(tokens, min(ceil(tokens / batch), total_steps)) for tokens in sorted(set(asked)))


def passed(members: Iterable[tuple[str, Iterable[Milestone]]], is_kept: Callable[[str, int], bool]) -> str | None:
    """One line on the milestones that these members, by label, are past and have no snapshot of; None without such."""
    lacking = {label: [m.tokens for m in own if not is_kept(label, m.tokens)] for label, own in members}
    lacking = {label: tokens for label, tokens in lacking.items() if tokens}
    if not lacking:
        return None
    every = sorted({tokens for own in lacking.values() for tokens in own})
    few = ", ".join(f"{tokens:,}" for tokens in every[:4]) + (f" and {len(every) - 4} more" if len(every) > 4 else "")
    who = next(iter(lacking)) + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
    return (
        f"training.milestones: {who} are past {few} tokens and keep no snapshot of that; it is taken while a member"
        " trains, so give another name= to have it"
    )
