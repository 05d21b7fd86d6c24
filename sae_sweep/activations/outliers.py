"""Activations that are too long to count: `data.max_norm_ratio` times the median norm of a stream's first block."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sae_sweep.activations.block import Block

LONG, LONG_WHERE_RARE = 10.0, 5.0
RARE = 1e-3
"""What `auto` stands for: LONG, or LONG_WHERE_RARE where a smaller share of the first block than RARE is so long.

After blocks 2 to 8 of SmolLM2-135M about one token in a hundred is 5 to 10 times as long as the median: "the", mostly,
and spaces. Those are to be learnt. After block 12 one in 100,000 is, and as nothing learns it, it is in one step twice
the error of an L1 SAE on all the rest of its batch.
"""


class Guard:
    """Says of each activation whether it counts, for training and evaluation alike.

    Each site judges for itself, so that which other sites share the stream changes nothing for a member.
    """

    def __init__(
        self,
        ratio: float | str | None,
        first: Callable[[], Block],
        hooks: Sequence[str],
        known: Mapping[str, float] | None = None,
    ) -> None:
        """`first` reads the stream's first block, whole, of all its sites; where `ratio` is None all count. It is not
        read where the largest norm of every site is `known`."""
        self._ratio, self._first = ratio, first
        self._known = {hook: norm for hook, norm in (known or {}).items() if hook in hooks}
        whole = set(hooks) <= self._known.keys()
        self._largest: dict[str, float] | None = {} if ratio is None else self._known if whole else None

    @property
    def largest_norms(self) -> dict[str, float]:
        """By hook, the norm above which an activation does not count; empty where all do."""
        return self._measured(None)

    def _measured(self, block: Block | None) -> dict[str, float]:
        """`block` is one that was read already: it is measured where it is the first."""
        if self._largest is None:
            assert self._ratio is not None
            first = block if block is not None and block.index == 0 else self._first()
            found = {hook: largest_norm(row_norms(x_BD), self._ratio) for hook, x_BD in first.activations.items()}
            self._largest = found | self._known
        return self._largest

    def told(self, block: Block) -> Block:
        """The block, told which of its activations do not count."""
        if not self._measured(block):
            return block
        found = {hook: self.inliers(hook, x_BD) for hook, x_BD in block.activations.items()}
        inliers = {hook: inlier_B for hook, inlier_B in found.items() if not inlier_B.all()}
        sequences = block.sequences
        if sequences is not None:
            read = sequences.clean.activations
            own = {hook: self.inliers(hook, read[hook].flatten(0, 1)).view(read[hook].shape[:2]) for hook in inliers}
            sequences = replace(sequences, inliers={hook: inlier_RT.cpu() for hook, inlier_RT in own.items()})
        return replace(block, sequences=sequences, inliers=inliers)

    def inliers(self, hook: str, x_ND: Tensor) -> Tensor:
        """Whether each of N activations of a site counts, bool [N]."""
        largest = self.largest_norms.get(hook)
        return torch.ones_like(x_ND[:, 0], dtype=torch.bool) if largest is None else row_norms(x_ND) <= largest


def largest_norm(norms_B: Tensor, ratio: float | str) -> float:
    """The largest norm that counts: `data.max_norm_ratio` times the median of a first block's norms [B]."""
    median = float(norms_B.median())
    if isinstance(ratio, str):
        rare = float((norms_B > LONG_WHERE_RARE * median).double().mean()) < RARE
        ratio = LONG_WHERE_RARE if rare else LONG
    return ratio * median


def row_norms(x_BD: Tensor) -> Tensor:
    """Norms [B], in float32 at least: the square of a half-precision number overflows early."""
    dtype = torch.promote_types(x_BD.dtype, torch.float32)
    norms_B: Tensor = torch.linalg.vector_norm(x_BD, dim=1, dtype=dtype)
    return norms_B
