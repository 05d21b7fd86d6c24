"""A block that several ranks harvest together: each runs the model on its share of the rows, for the sites of all.

A rank that fails on the way says so at the next point where the others wait for it, so that none waits for ever. What
takes memory is made before activations are on their way.
"""

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import TypeVar

import torch
from torch import Tensor

from sae_sweep.activations.stream import BlockRows, Gather, Recall
from sae_sweep.errors import ConfigError
from sae_sweep.kernels.device import moved
from sae_sweep.plan.spread import shares
from sae_sweep.training.devices.ranks import Ranks

T = TypeVar("T")


class Gathering:
    """The source of blocks that harvests with the other ranks what a memory has not."""

    def __init__(self, ranks: Ranks, memory: Recall | None, rows_per_forward: int) -> None:
        self._ranks, self._memory, self._rows_per_forward = ranks, memory, rows_per_forward
        self.recall = memory if ranks.alone else self._recalled
        """What a stream asks for activations; None where it harvests them itself."""
        self._met = False
        """Whether this rank has met the others for the block that it makes."""

    def meeting(self, make: Callable[[], T]) -> T:
        """What this rank makes, which asks for activations; if it fails before that, the others hear of it."""
        self._met = False
        try:
            return make()
        except Exception as error:
            if not self._met and not self._ranks.alone:
                self._ranks.fail(error, self._ranks.stream)
            raise

    def _recalled(self, rows: BlockRows, hooks: Sequence[str], gather: Gather) -> dict[str, Tensor]:
        asked = False

        def gathered(rows: BlockRows, missing: Sequence[str]) -> dict[str, Tensor]:
            nonlocal asked
            asked = True
            return self._gathered(rows, missing, gather)

        if self._memory is None or not hooks:
            return gathered(rows, hooks)
        try:
            return self._memory(rows, hooks, gathered)
        finally:
            if not asked:  # the others may lack something
                self._gathered(rows, (), gather)

    def _gathered(self, rows: BlockRows, hooks: Sequence[str], gather: Gather) -> dict[str, Tensor]:
        """A block's activations [B, d] at the hooks this rank asks for, harvested by all ranks at those of all."""
        ranks, tokens = self._ranks, blake2b(rows.tokens_RT.numpy().data, digest_size=8).hexdigest()
        self._met = True
        said = ranks.exchange((rows.index, tokens, tuple(hooks)), ranks.stream)
        if len({(index, stamp) for index, stamp, _ in said}) > 1:
            raise ranks.known(ConfigError("data: ranks read other tokens than each other; give all the same data"))
        wanted = [asked for _, _, asked in said]
        every = sorted({hook for asked in wanted for hook in asked})
        if not every:
            return {}
        bounds = _bounds(len(rows.tokens_RT), self._rows_per_forward, ranks.size)
        made: dict[str, Tensor] = {}

        def harvest() -> dict[str, tuple[int, torch.dtype]]:
            own = _share(rows, *bounds[ranks.rank])
            made.update(gather(own, every) if len(own.tokens_RT) else {})
            return {hook: (x_ND.shape[1], x_ND.dtype) for hook, x_ND in made.items()}

        forms = {hook: form for said in ranks.collected(harvest, ranks.stream) for hook, form in said.items()}
        counts = [int(rows.counted_RT[start:stop].sum()) for start, stop in bounds]
        blocks = {}
        for hook in every:  # one after the other: what comes in has to be held beside the block
            asked_here = hook in wanted[ranks.rank]
            room = ranks.ready(partial(_Room, ranks, rows, counts, *forms[hook], wanted=asked_here), ranks.stream)
            receivers = [rank for rank, asked in enumerate(wanted) if hook in asked]
            found = ranks.trade(made.pop(hook, None), room.coming, receivers)
            if found:
                blocks[hook] = room.placed(found)
        return blocks


class _Room:
    """Memory for what all ranks have of a site, and for the block that it becomes; none where it is not wanted."""

    def __init__(
        self, ranks: Ranks, rows: BlockRows, counts: Sequence[int], width: int, dtype: torch.dtype, *, wanted: bool
    ) -> None:
        """`counts` are the activations of each rank."""
        self.coming: dict[int, Tensor] = {}
        if wanted:
            empty = partial(torch.empty, dtype=dtype, device=ranks.device)
            others = [(rank, n) for rank, n in enumerate(counts) if rank != ranks.rank or n == 0]
            self.coming = {rank: empty(n, width) for rank, n in others}
            self._places_B = moved(rows.places_B, ranks.device)
            self._block = empty(len(rows.places_B), width)

    def placed(self, found: dict[int, Tensor]) -> Tensor:
        """[B, d] in the block's order, from what each rank has in the rows' order."""
        first = 0
        for rank in sorted(found):
            x_ND = found.pop(rank)
            self._block.index_copy_(0, self._places_B[first : first + len(x_ND)], x_ND)
            first += len(x_ND)
        return self._block


def _bounds(rows: int, step: int, ranks: int) -> list[tuple[int, int]]:
    """The rows of each rank: whole forward passes of `step` rows, the same as one process makes."""
    own = shares(-(-rows // step), ranks)
    return [(min(one.start * step, rows), min(one.stop * step, rows)) for one in own]


def _share(rows: BlockRows, start: int, stop: int) -> BlockRows:
    """Some rows of a block, in their own order."""
    counted_RT = rows.counted_RT[start:stop]
    return BlockRows(rows.index, rows.tokens_RT[start:stop], counted_RT, torch.arange(int(counted_RT.sum())))
