"""The blocks of a group, on all its ranks: made ahead where that pays, and with less memory where it does not last.

A block is made by all ranks together, so one that has no room for it lets all make it once more, in the same way.
"""

from collections.abc import Callable, Iterator
from functools import partial

from sae_sweep.activations.block import Block
from sae_sweep.activations.prefetch import Prefetch
from sae_sweep.errors import ConfigError
from sae_sweep.training.devices.ranks import Ranks
from sae_sweep.training.devices.waves import Waves
from sae_sweep.training.run.sources import Source

SMALLER = "the model reads half as many rows at a time"


class Blocks:
    """Blocks by index."""

    def __init__(self, source: Source, waves: Waves, ranks: Ranks, first: Block, tell: Callable[[str], None]) -> None:
        """`first` is the block that is there already; `tell` hears what was done for memory."""
        self._ahead = Prefetch(source.block, source.device, source.pays_ahead, first)
        self._source, self._waves, self._ranks, self._tell = source, waves, ranks, tell
        self.pays_ahead, self.announce = self._ahead.pays_ahead, self._ahead.announce
        self.rest, self.close = self._ahead.rest, self._ahead.close

    def block(self, index: int) -> Block:
        """The block at `index`. Where memory does not last for it, it is made with what can be given back; then with
        members on the host meanwhile; then by passes of fewer rows. Raises ConfigError where nothing helps."""
        found = self._ranks.made_with(partial(self._ahead.block, index), self._ways(), self._told)
        if found is None:
            raise ConfigError(
                "launcher.memory_gb: memory does not last for a block beside the members; lower data.block_rows"
            )
        return found

    def _ways(self) -> Iterator[str]:
        yield "with what was given back"
        if self._ranks.any(self._waves.leave()):
            yield "members wait on the host"
        yield from _smaller(self._source, self._ranks)

    def _told(self, how: str) -> None:
        self._tell(f"launcher.memory_gb: out of memory while a block is made; once more, {how}")


def first_block(source: Source, ranks: Ranks, tell: Callable[[str], None]) -> Block:
    """The first block; by passes of half as many rows, and again half, where memory does not last for one. Raises
    ConfigError where one row is too many."""

    def told(how: str) -> None:
        tell(f"launcher.memory_gb: out of memory while the first block is made; once more, {how}")

    found = ranks.made_with(source.calibration, _smaller(source, ranks), told)
    if found is None:
        raise ConfigError(
            "launcher.memory_gb: memory does not last for the first block; lower data.block_rows or data.context"
        )
    return found


def _smaller(source: Source, ranks: Ranks) -> Iterator[str]:
    while ranks.any(source.in_smaller_passes()):
        yield SMALLER
