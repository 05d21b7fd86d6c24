"""A block that several ranks harvest together: each runs the model on its share of the rows, for the sites of all."""

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from sae_sweep.activations.stream import BlockRows, Gather, Recall
from sae_sweep.errors import ConfigError
from sae_sweep.plan.spread import shares
from sae_sweep.training.devices.ranks import Ranks


def together(ranks: Ranks, memory: Recall | None, rows_per_forward: int) -> Recall | None:
    """The source of blocks that harvests with the other ranks what `memory` has not."""
    if ranks.alone:
        return memory

    def recalled(rows: BlockRows, hooks: Sequence[str], gather: Gather) -> dict[str, Tensor]:
        asked = False

        def gathered(rows: BlockRows, missing: Sequence[str]) -> dict[str, Tensor]:
            nonlocal asked
            asked = True
            return _gathered(ranks, rows_per_forward, rows, missing, gather)

        try:
            return gathered(rows, hooks) if memory is None or not hooks else memory(rows, hooks, gathered)
        finally:
            if not asked:  # the others may lack something
                _gathered(ranks, rows_per_forward, rows, (), gather)

    return recalled


def _gathered(
    ranks: Ranks, rows_per_forward: int, rows: BlockRows, hooks: Sequence[str], gather: Gather
) -> dict[str, Tensor]:
    """A block's activations [B, d] at the hooks this rank asks for, harvested by all ranks at those of all."""
    tokens = blake2b(rows.tokens_RT.numpy().data, digest_size=8).hexdigest()
    said = ranks.exchange((rows.index, tokens, tuple(hooks)), ranks.stream)
    if len({(index, stamp) for index, stamp, _ in said}) > 1:
        raise ranks.known(ConfigError("data: ranks read other tokens than each other; give all the same data"))
    wanted = [asked for _, _, asked in said]
    every = sorted({hook for asked in wanted for hook in asked})
    if not every:
        return {}
    bounds = _bounds(len(rows.tokens_RT), rows_per_forward, ranks.size)
    made: dict[str, Tensor] = {}

    def harvest() -> dict[str, tuple[int, torch.dtype]]:
        own = _share(rows, *bounds[ranks.rank])
        made.update(gather(own, every) if len(own.tokens_RT) else {})
        return {hook: (x_ND.shape[1], x_ND.dtype) for hook, x_ND in made.items()}

    forms = {hook: form for said in ranks.collected(harvest, ranks.stream) for hook, form in said.items()}
    counts = [int(rows.counted_RT[start:stop].sum()) for start, stop in bounds]
    blocks = {}
    for hook in every:  # one after the other: what comes in has to be held beside the block
        width, dtype = forms[hook]
        room = (
            {rank: torch.empty(n, width, dtype=dtype, device=ranks.device) for rank, n in enumerate(counts)}
            if hook in wanted[ranks.rank]
            else {}
        )
        receivers = [rank for rank, asked in enumerate(wanted) if hook in asked]
        found = ranks.trade(made.pop(hook, None), room, receivers)
        if found:
            blocks[hook] = _placed(found, rows.places_B)
    return blocks


def _bounds(rows: int, step: int, ranks: int) -> list[tuple[int, int]]:
    """The rows of each rank: whole forward passes of `step` rows, the same as one process makes."""
    own = shares(-(-rows // step), ranks)
    return [(min(one.start * step, rows), min(one.stop * step, rows)) for one in own]


def _share(rows: BlockRows, start: int, stop: int) -> BlockRows:
    """Some rows of a block, in their own order."""
    counted_RT = rows.counted_RT[start:stop]
    return BlockRows(rows.index, rows.tokens_RT[start:stop], counted_RT, torch.arange(int(counted_RT.sum())))


def _placed(found: dict[int, Tensor], places_B: Tensor) -> Tensor:
    """[B, d] in the block's order, from what each rank has in the rows' order."""
    first, places = 0, places_B.to(found[0].device)
    block = found[0].new_empty(len(places), found[0].shape[1])
    for rank in sorted(found):
        x_ND = found.pop(rank)
        block.index_copy_(0, places[first : first + len(x_ND)], x_ND)
        first += len(x_ND)
    return block
