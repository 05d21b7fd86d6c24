"""Evaluating members on synthetic activations: no model to splice into, but true latents to recover."""

from collections.abc import Callable, Sequence
from math import ceil

import torch

from sae_sweep.activations.first_block import FirstBlock
from sae_sweep.activations.toy import ToyStream
from sae_sweep.config.schema import MemberConfig
from sae_sweep.evaluation.evaluator import Evaluation, SplicedSae
from sae_sweep.evaluation.recovery import recovery_metrics
from sae_sweep.evaluation.sums import SaeSums

FREQUENT_FROM = 10_000
"""Rows of a member's training that a true latent must have been active on to count as frequent."""


class ToyEvaluator:
    """Evaluates any number of SAEs on the same held-out rows, `data.context` of them to a sequence."""

    first_block = FirstBlock()
    """All activations count, and none is replaced."""

    def __init__(self, stream: ToyStream, config: MemberConfig) -> None:
        """`stream` is the one the SAEs are trained on."""
        self._stream = stream
        self._context = config.data.context
        self._sequences = ceil(config.evaluation.tokens / config.data.context)

    @torch.no_grad()
    def evaluate(
        self, saes: Sequence[SplicedSae], done: Callable[[float], None] = lambda share: None
    ) -> dict[str, Evaluation]:
        """Metrics of every SAE, by label; none that needs a language model."""
        device = self._stream.truth_GD.device
        sums = {one.label: SaeSums(one.sae, self._sequences, device) for one in saes}
        first = 0
        for x_bD in self._stream.heldout(self._sequences * self._context):
            sequence_b = torch.arange(first, first + len(x_bD), device=device) // self._context
            for own in sums.values():
                own.add(x_bD, torch.zeros_like(sequence_b), torch.ones_like(sequence_b, dtype=torch.bool), sequence_b)
            first += len(x_bD)
            done(first / (self._sequences * self._context))
        return {one.label: self._evaluation(one, sums[one.label]) for one in saes}

    def in_smaller_batches(self) -> None:
        """There are no smaller ones: what is held at a time is small."""

    def _evaluation(self, one: SplicedSae, sums: SaeSums) -> Evaluation:
        truth_GD, frequency_F = self._stream.truth_GD, sums.sparsity.frequency_F
        frequent_G = (self._stream.fired(one.steps, one.batch_size) >= FREQUENT_FROM).to(truth_GD.device)
        recovered = recovery_metrics(one.sae.tensors["W_dec"], frequency_F > 0, truth_GD, frequent_G)
        return Evaluation(one.sae, {**sums.metrics(), **recovered}, frequency_F)
