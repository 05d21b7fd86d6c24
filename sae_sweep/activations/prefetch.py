"""The next block made while the one before it is trained on, in a thread of its own.

On a GPU its work is queued on a second stream, beside the training steps on the first. Blocks that `data.cache` has are
read so on a CPU too. A model that runs on the CPU is not: its forward passes would take the cores from the steps.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch

from sae_sweep.activations.block import Block
from sae_sweep.host.memory import OUT_OF_MEMORY, is_out_of_memory


class Prefetch:
    """Blocks by index, of which the one that was announced is made ahead."""

    def __init__(
        self,
        make: Callable[[int], Block],
        device: torch.device,
        pays: Callable[[int], bool],
        made: Block | None = None,
    ) -> None:
        """`pays` says whether a block is worth making ahead; `made` is one that is there, for who asks for it first."""
        self._make, self._device, self._pays = make, device, pays
        self._thread = ThreadPoolExecutor(1, "block")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead: tuple[int, Future[Block]] | None = None
        self._there = made
        self._beside = True
        """Whether there is room for a block beside steps, as far as is known."""

    def pays_ahead(self, index: int) -> bool:
        """Whether a block is worth making ahead, and there is room."""
        return self._beside and self._pays(index)

    def announce(self, index: int) -> None:
        """Begin with a block, if that pays and the one announced before was fetched."""
        if self._ahead is None and self.pays_ahead(index):
            if self._stream is not None:  # what is queued already may write what the block is made from
                self._stream.wait_stream(torch.cuda.current_stream(self._device))
            self._ahead = (index, self._thread.submit(self._made, index))

    def block(self, index: int) -> Block:
        """The block at `index`, made ahead or now. Raises what making it raises; where memory ran out while steps were
        taken, none is made ahead from then on."""
        there, self._there = self._there, None
        if there is not None and there.index == index:
            return there
        del there  # before another one is made: two would need twice the room
        if self._ahead is None:
            return self._make(index)
        self.rest()
        announced, future = self._ahead
        if announced != index:
            return self._make(index)
        self._ahead = None
        try:
            block = future.result()
        except OUT_OF_MEMORY as error:
            self._beside = not is_out_of_memory(error)
            raise
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            before = () if block.before_B is None else (block.before_B,)
            for tensor in (*block.activations.values(), *block.tokens.values(), *block.inliers.values(), *before):
                tensor.record_stream(current)  # else its memory could be taken again while steps read it
        return block

    def rest(self) -> None:
        """Return when the thread is idle: the model is free for something else."""
        if self._ahead is not None:
            wait([self._ahead[1]])

    def close(self) -> None:
        """End the thread, after the block that it is making; a block that was not begun is not made."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._ahead = None

    def _made(self, index: int) -> Block:
        if self._stream is None:
            return self._make(index)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            return self._make(index)
