"""Codes of one SAE on the held-out tokens of its sweep."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sae_sweep.api.model import Model
from sae_sweep.data.positions import counted_positions, readable
from sae_sweep.data.tokens import open_tokens
from sae_sweep.kernels.entries import Entries
from sae_sweep.model.harvest import harvest

if TYPE_CHECKING:
    from sae_sweep.api.sae import Sae


KEPT = 2**26
"""Codes that are kept for the next question, 8 bytes each; where there are more, it is another pass of the model."""


Batch = tuple[slice, Tensor, Entries]
"""Some rows, their counted positions, and the codes above 0 at these."""


class HeldOutCodes:
    """The held-out rows of an SAE's sweep, and its codes there."""

    def __init__(self, sae: "Sae", model: Model) -> None:
        config, running = sae.home.config, model.running
        tokens = open_tokens(config.data, config.evaluation.tokens, running.tokenizer, running.facts.vocab_size)
        self._heldout_RT = torch.from_numpy(tokens.heldout).long()
        self.tokens_RT = readable(self._heldout_RT)
        """The ids of the held-out rows, on the CPU."""
        self._sae, self._running, self._rows = sae, running, config.data.rows_per_forward
        self._kept: list[Batch] | None = None

    def of_latent(self, latent: int) -> tuple[Tensor, int]:
        """[R, T] of one latent, on the CPU, 0 where it does not fire or nothing counts; and how many positions do."""
        f_RT, counted = torch.zeros(self.tokens_RT.shape), 0
        for rows, counted_RT, (offsets, column_N, value_N) in self._batches():
            position_N = torch.repeat_interleave(offsets.diff())
            chosen_N = column_N == latent
            codes_B = value_N.new_zeros(len(offsets) - 1).index_put((position_N[chosen_N],), value_N[chosen_N])
            f_RT[rows].masked_scatter_(counted_RT.cpu(), codes_B.float().cpu())
            counted += len(codes_B)
        return f_RT, counted

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

    @torch.no_grad()
    def _passed(self) -> Iterator[Batch]:
        sae, running = self._sae, self._running
        plain, special_ids = sae.frozen(running.device), running.special_ids.to(running.device)
        for first in range(0, len(self._heldout_RT), self._rows):
            rows = slice(first, first + self._rows)
            tokens_RT = self.tokens_RT[rows].to(running.device)
            counted_RT = counted_positions(self._heldout_RT[rows].to(running.device), special_ids, running.bos_id)
            found = harvest(running, tokens_RT, sae.home.hooks)
            x_ND = torch.cat([found[hook][counted_RT] for hook in sae.home.hooks], dim=1)
            yield rows, counted_RT, plain.coded(x_ND.to(sae.dtype), tokens_RT[counted_RT])[0]
