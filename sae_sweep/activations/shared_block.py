"""A block where several forked processes can read it."""

from dataclasses import replace
from typing import TypeAlias

from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.host.shared_memory import shared_empty

SPARE = 1.25
"""Room for blocks that are larger than the first: how many positions count differs."""

Filling: TypeAlias = tuple[int, int, dict[tuple[str, str], int]]
"""Index and epoch of a block, and the length of each tensor by kind and hook."""


class SharedBlock:
    """Room for one block at a time, without sequences."""

    def __init__(self, like: Block) -> None:
        every = {hook: tokens_B.bool() for hook, tokens_B in like.tokens.items()}  # a later block may have outliers
        self._rooms = {
            key: shared_empty((int(SPARE * len(tensor)), *tensor.shape[1:]), tensor.dtype)
            for key, tensor in _tensors(replace(like, inliers=every)).items()
        }

    def fits(self, block: Block) -> bool:
        """Whether the rooms are large enough for a block."""
        return all(len(tensor) <= len(self._rooms[key]) for key, tensor in _tensors(block).items())

    def fill(self, block: Block) -> Filling:
        """Put a block there; what another process needs to `read` it."""
        tensors = _tensors(block)
        for key, tensor in tensors.items():
            self._rooms[key][: len(tensor)] = tensor
        return block.index, block.epoch, {key: len(tensor) for key, tensor in tensors.items()}

    def read(self, filling: Filling) -> Block:
        """The block that is there; the next `fill` overwrites it."""
        index, epoch, lengths = filling

        def found(kind: str) -> dict[str, Tensor]:
            return {hook: self._rooms[kind, hook][:length] for (own, hook), length in lengths.items() if own == kind}

        before_B = found("before").get("")
        return Block(index, epoch, found("activations"), found("tokens"), inliers=found("inliers"), before_B=before_B)


def _tensors(block: Block) -> dict[tuple[str, str], Tensor]:
    before = {} if block.before_B is None else {"": block.before_B}
    kinds = {"activations": block.activations, "tokens": block.tokens, "inliers": block.inliers, "before": before}
    return {(kind, hook): tensor for kind, tensors in kinds.items() for hook, tensor in tensors.items()}
