"""Which tokens a running model reads, and which of their positions count: what interventions keep to."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sae_sweep.data.positions import counted_positions
from sae_sweep.model.language_model import LanguageModel


class Reading:
    """The tokens of the forward pass that runs: with a KV cache the new ones only."""

    tokens_RT: Tensor
    counted_RT: Tensor
    """[R, T] bool. No special id and no padding, and not the first token of a row, which is one that a pass begins
    with, not one that it goes on with."""

    def __init__(self, model: LanguageModel) -> None:
        self._special_ids, self._bos_id = model.special_ids.to(model.device), model.bos_id

    def note(self, tokens_RT: Tensor, goes_on: bool, attended_RT: Tensor | None) -> None:
        """Take note of a pass; `goes_on` says that a cache has what came before."""
        before = tokens_RT[:, :1] if goes_on else tokens_RT[:, :0]
        counted_RT = counted_positions(torch.cat([before, tokens_RT], 1), self._special_ids, self._bos_id)
        counted_RT = counted_RT[:, before.shape[1] :]
        if attended_RT is not None:  # padding on the left moves the first position
            counted_RT = counted_RT & attended_RT & (goes_on | (attended_RT.cumsum(1) > 1))
        self.tokens_RT, self.counted_RT = tokens_RT, counted_RT

    def where_counted(self, changed_RTd: Tensor, activation_RTd: Tensor) -> Tensor:
        """The first at counted positions, the second elsewhere."""
        return torch.where(self.counted_RT[..., None], changed_RTd, activation_RTd)


@contextmanager
def following(model: LanguageModel) -> Iterator[Reading]:
    """While this lasts, what is yielded says of every forward pass which tokens it reads. Raises ValueError in a pass
    that is given embeddings instead of tokens."""
    reading = Reading(model)

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens_RT = args[0] if args else kwargs.get("input_ids")
        if tokens_RT is None:
            raise ValueError("interventions need the token ids of what the model reads; give input_ids")
        past, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        attended_RT = None
        if isinstance(mask, Tensor) and mask.ndim == 2:
            attended_RT = mask[:, -tokens_RT.shape[1] :].to(model.device, torch.bool)
        reading.note(tokens_RT.to(model.device), past is not None and past.get_seq_length() > 0, attended_RT)

    with model.backbone.register_forward_pre_hook(note, with_kwargs=True):
        yield reading
