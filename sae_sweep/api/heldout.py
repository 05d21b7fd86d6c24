"""Codes of one SAE on the held-out tokens of its sweep."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sae_sweep.activations.first_block import read_first_block
from sae_sweep.api.model import Model
from sae_sweep.kernels.entries import Entries
from sae_sweep.plan.groups import stream_key
from sae_sweep.training.run.sources import LanguageModelSource

if TYPE_CHECKING:
    from sae_sweep.api.sae import Sae

KEPT = 2**26
"""Codes that are kept for the next question, 8 bytes each; where there are more, it is another pass of the model."""

Batch = tuple[Tensor, Tensor, Entries]
"""The tokens of some rows, their counted positions, both [R, T] on the CPU, and the codes above 0 at these."""


class HeldOutCodes:
    """An SAE's codes at the positions at which its sweep judged it."""

    def __init__(self, sae: "Sae", model: Model) -> None:
        """Nothing is read before it is asked for. Raises ConfigError where no sweep trained the SAE."""
        config, no_means = sae.home.config, dict.fromkeys(sae.writes, torch.zeros(0))  # nothing is ablated
        own = stream_key(replace(config, model=model.running.config)) == stream_key(config)
        first_block = read_first_block([sae.home.folder] if own else [])
        self._spliced = sae.spliced(model.running.device)
        hooks = self._spliced.sites
        source = LanguageModelSource(config, hooks, loaded=sae.home.models(model), first_block=first_block)
        self._evaluator = source.evaluator(config.evaluation.positions, no_means)
        self._kept: list[Batch] | None = None

    def of_latent(self, latent: int) -> tuple[Tensor, Tensor, int]:
        """The tokens [R, T]; one latent's codes [R, T], 0 where it does not fire or nothing counts; and how many
        positions count. On the CPU."""
        tokens, codes, counted = list[Tensor](), list[Tensor](), 0
        for tokens_RT, counted_RT, (offsets, column_N, value_N) in self._batches():
            position_N = torch.repeat_interleave(offsets.diff())
            chosen_N = column_N == latent
            codes_B = value_N.new_zeros(len(offsets) - 1).index_put((position_N[chosen_N],), value_N[chosen_N])
            tokens.append(tokens_RT)
            codes.append(torch.zeros(tokens_RT.shape).masked_scatter(counted_RT, codes_B.float().cpu()))
            counted += len(codes_B)
        return torch.cat(tokens), torch.cat(codes), counted

    def _batches(self) -> Iterator[Batch]:
        """Those of a pass before where they are kept, else those of a new one."""
        if self._kept is not None:
            yield from self._kept
            return
        kept, room = list[Batch](), KEPT
        for batch in self._passed():
            room -= len(batch[2].value_N)
            if room >= 0:
                kept.append(batch)
            else:
                kept.clear()
            yield batch
        self._kept = kept if room >= 0 else None

    def _passed(self) -> Iterator[Batch]:
        with torch.no_grad():
            for batch in self._evaluator.batches():
                counted_RT = batch.places(self._spliced.sites).counted_RT
                yield batch.clean.tokens_RT.cpu(), counted_RT.cpu(), self._evaluator.codes(self._spliced, batch)
