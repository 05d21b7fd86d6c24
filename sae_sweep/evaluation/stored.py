"""Evaluating members on stored activations: no model to splice into, so neither CE nor KL."""

from collections.abc import Callable, Sequence

import torch

from sae_sweep.activations.first_block import FirstBlock
from sae_sweep.activations.stored import StoredStream
from sae_sweep.data.stored.feed import Feed
from sae_sweep.evaluation.evaluator import Evaluation, SplicedSae
from sae_sweep.evaluation.sums import SaeSums


class StoredEvaluator:
    """Evaluates any number of SAEs on the same held-out rows."""

    def __init__(self, stream: StoredStream, data: Feed | None = None, rows: int | None = None) -> None:
        """`stream` is the one the SAEs are trained on; `data` has the held-out rows where these are others, and of them
        the first `rows` are read, or all."""
        self._stream, self._data = stream, data or stream.data
        self._rows = rows or self._data.heldout_rows

    @property
    def first_block(self) -> FirstBlock:
        """What it goes by of the first block of the stream that SAEs were trained on."""
        return FirstBlock(largest_norms=self._stream.guard.largest_norms)

    @torch.no_grad()
    def evaluate(
        self, saes: Sequence[SplicedSae], done: Callable[[float], None] = lambda share: None
    ) -> dict[str, Evaluation]:
        """Metrics of every SAE, by label; none that needs a language model."""
        rows, device = self._rows, self._stream.device
        sums = {one.label: SaeSums(one.sae, rows, device) for one in saes}
        left_out = read = 0
        for x_bD, row_b, token_b in self._stream.heldout(self._data, rows):
            inlier_b = self._stream.guard.inliers(self._stream.hook, x_bD)
            for own in sums.values():
                own.add(x_bD, token_b, inlier_b, row_b)
            left_out, read = left_out + int((~inlier_b).sum()), read + len(x_bD)
            done((int(row_b.max()) + 1) / rows if len(row_b) else 0.0)
        outliers = {"outlier_fraction": left_out / read if self._stream.guard.largest_norms else None}
        return {
            one.label: Evaluation(one.sae, {**own.metrics(), **outliers}, own.sparsity.frequency_F)
            for one, own in zip(saes, sums.values(), strict=True)
        }

    def in_smaller_batches(self) -> None:
        """There are no smaller ones: what is held at a time is small."""
