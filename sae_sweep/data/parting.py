"""Where documents begin in packed rows, for attention that does not cross them (`data.attention=document`)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.config.schema import DataConfig
from sae_sweep.data.packing import Tokenizer
from sae_sweep.errors import ConfigError


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


def parting(config: DataConfig, tokenizer: Tokenizer | None) -> Parting | None:
    """How rows are parted; None where attention may cross documents. Raises ConfigError where no id would part them."""
    if config.attention == "row":
        return None
    bos_id = tokenizer.bos_token_id if tokenizer is not None and config.bos != "never" else None
    eos_id = tokenizer.eos_token_id if tokenizer is not None else None
    if bos_id is None and eos_id is None:
        raise ConfigError(
            "data.attention=document: the model has no tokenizer with a BOS or EOS token, by which documents would be"
            " known; take data.packing=document"
        )
    return Parting(bos_id, None if eos_id == bos_id else eos_id)
