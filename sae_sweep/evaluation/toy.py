"""Judging members on synthetic activations: no model to splice into, but true latents to recover."""

from collections.abc import Callable, Sequence
from math import ceil

import torch

from sae_sweep.activations.toy import ToyStream
from sae_sweep.config.schema import MemberConfig
from sae_sweep.evaluation.evaluate import Candidate, Judgement, Sums
from sae_sweep.evaluation.recovery import recovery_metrics

FREQUENT_FROM = 10_000
"""Rows of a member's training that a true latent must have been active on to count as frequent."""


class ToyEvaluator:
    """Judges any number of candidates on the same held-out rows, `data.context` of them to a sequence."""

    def __init__(self, stream: ToyStream, config: MemberConfig) -> None:
        """`stream` is the one the candidates are trained on."""
        self._stream = stream
        self._context = config.data.context
        self._sequences = ceil(config.evaluation.tokens / config.data.context)

    @torch.no_grad()
    def judge(
        self, candidates: Sequence[Candidate], done: Callable[[float], None] = lambda share: None
    ) -> dict[str, Judgement]:
        """Metrics of every candidate, by label; none that needs a language model."""
        device = self._stream.truth_GD.device
        sums = {c.label: Sums(c.sae, self._sequences, device) for c in candidates}
        first = 0
        for x_bD in self._stream.heldout(self._sequences * self._context):
            sequence_b = torch.arange(first, first + len(x_bD), device=device) // self._context
            for own in sums.values():
                own.add(x_bD, torch.zeros_like(sequence_b), torch.ones_like(sequence_b, dtype=torch.bool), sequence_b)
            first += len(x_bD)
            done(first / (self._sequences * self._context))
        return {c.label: self._judgement(c, sums[c.label]) for c in candidates}

    def in_smaller_batches(self) -> None:
        """There are no smaller ones: what is held at a time is small."""

    def _judgement(self, candidate: Candidate, sums: Sums) -> Judgement:
        truth_GD, frequency_F = self._stream.truth_GD, sums.sparsity.frequency_F
        frequent_G = (self._stream.fired(candidate.steps, candidate.batch_size) >= FREQUENT_FROM).to(truth_GD.device)
        recovered = recovery_metrics(candidate.sae.tensors["W_dec"], frequency_F > 0, truth_GD, frequent_G)
        return Judgement(candidate.sae, {**sums.metrics(), **recovered}, frequency_F)
