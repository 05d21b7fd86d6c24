"""Which positions count: one policy for training, splicing, ablation and averages."""

import torch
from torch import Tensor

from sae_sweep.model.parting import Parting


def counted_positions(
    tokens_RT: Tensor, special_ids: Tensor, bos_id: int | None, parting: Parting | None = None
) -> Tensor:
    """Positions whose activations are trained on and judged, bool [R, T].

    Not padding or what else the data leaves out, which a row of token ids holds as ~id. Not a special id (padding and
    BOS among them), and not the first of a row: that is BOS, or else whatever token attention has made its sink. A row
    that begins with BOS counts from its second position, and so does one without. Where attention keeps within
    documents, the same is so of each document.
    """
    counted_RT = ~torch.isin(tokens_RT, special_ids.to(tokens_RT)) & (tokens_RT >= 0)
    if bos_id is not None:
        counted_RT &= tokens_RT != bos_id
    counted_RT[:, 0] = False
    return counted_RT if parting is None else counted_RT & ~parting.begins(readable(tokens_RT))


def target_positions(counted_RT: Tensor, tokens_RT: Tensor, special_ids: Tensor) -> Tensor:
    """Positions t over which CE and KL are averaged, bool [R, T]: t counts, and t + 1 is in the row and not special."""
    targets_RT = torch.zeros_like(counted_RT)
    next_RT = tokens_RT[:, 1:]
    targets_RT[:, :-1] = counted_RT[:, :-1] & ~torch.isin(next_RT, special_ids.to(tokens_RT)) & (next_RT >= 0)
    return targets_RT


def readable(tokens_RT: Tensor) -> Tensor:
    """The ids [R, T] as the model reads them, at positions that do not count too."""
    return torch.where(tokens_RT < 0, ~tokens_RT, tokens_RT)
