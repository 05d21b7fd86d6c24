"""When a member is given up: its losses are no numbers any more, or beyond return.

Losses are looked at where they are logged, parameters at the end of each block: both are fixed places in a run, so
that where a run was interrupted changes nothing. Until a member is noticed it goes on as it is; the bank's others
feel nothing of it.
"""

from collections.abc import Mapping
from math import isfinite

BEYOND_RETURN = 1e9
"""A reconstruction this many times worse than none: a bad start is tens of times worse, and comes back."""
TERMS = ("reconstruction", "sparsity", "auxiliary", "loss")


def divergence(values: Mapping[str, float], variance: float, step: int) -> str | None:
    """Why a member whose logged step this is has diverged, in one line; None where it has not.

    `variance` is E||x - mean||^2 of the inputs it trains on.
    """
    for term in TERMS:
        if not isfinite(values[term]):
            name = "loss" if term == "loss" else f"{term} loss"
            return f"it diverged: its {name} was {values[term]} at step {step}"
    times = values["reconstruction"] / variance if variance > 0 else 0.0
    if times > BEYOND_RETURN:
        return f"it diverged: its reconstruction loss was {times:.2g} times the variance of its inputs at step {step}"
    return None
