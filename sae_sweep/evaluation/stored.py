"""Evaluating members on stored activations: no model to splice into, so neither CE nor KL."""

from collections.abc import Callable, Sequence

import torch

from sae_sweep.activations.stored import StoredStream
from sae_sweep.evaluation.evaluator import Evaluation, SplicedSae
from sae_sweep.evaluation.sums import SaeSums


class StoredEvaluator:
    """Evaluates any number of SAEs on the same held-out rows."""

    def __init__(self, stream: StoredStream) -> None:
        """`stream` is the one the SAEs are trained on."""
        self._stream = stream

    @torch.no_grad()
    def evaluate(
        self, saes: Sequence[SplicedSae], done: Callable[[float], None] = lambda share: None
    ) -> dict[str, Evaluation]:
        """Metrics of every SAE, by label; none that needs a language model."""
        rows, device = self._stream.heldout_rows, self._stream.device
        sums = {one.label: SaeSums(one.sae, rows, device) for one in saes}
        for x_bD, row_b, token_b in self._stream.heldout():
            for own in sums.values():
                own.add(x_bD, token_b, torch.ones_like(row_b, dtype=torch.bool), row_b)
            done((int(row_b.max()) + 1) / rows if len(row_b) else 0.0)
        return {
            one.label: Evaluation(one.sae, sums[one.label].metrics(), sums[one.label].sparsity.frequency_F)
            for one in saes
        }

    def in_smaller_batches(self) -> None:
        """There are no smaller ones: what is held at a time is small."""
