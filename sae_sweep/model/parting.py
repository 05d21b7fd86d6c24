"""Where documents begin in a row of tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Parting:
    """The ids by which rows are parted: a document begins with BOS, or after EOS where that is another."""

    bos_id: int | None
    eos_id: int | None

    def begins(self, tokens_RT: Tensor) -> Tensor:
        """Bool [R, T]: the first position of each row, and of each document in it."""
        begins_RT = torch.zeros_like(tokens_RT, dtype=torch.bool)
        begins_RT[:, 0] = True
        if self.bos_id is not None:
            begins_RT |= tokens_RT == self.bos_id
        if self.eos_id is not None:
            begins_RT[:, 1:] |= tokens_RT[:, :-1] == self.eos_id
        return begins_RT
