"""The lm head: final hidden states to logits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import local
from typing import Any

import torch
from torch import Tensor, nn

from sae_sweep.errors import ConfigError
from sae_sweep.model.blocks import close, patched
from sae_sweep.model.language_model import LanguageModel


class _BackboneOutput:
    """What a causal language model's forward reads from its backbone: hidden states, and None for all else."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, index: Any) -> Any:
        return (self.last_hidden_state,)[index]


@contextmanager
def head_of(model: LanguageModel) -> Iterator[Callable[[Tensor], Tensor]]:
    """A function from final hidden states [N, D] to logits [N, V], in float32 (float64 for a float64 model), which
    several threads may call while this lasts, and the model computes nothing else.

    Where they are more than a product, the model's own forward computes them, with its backbone replaced by the hidden
    states, so whatever an architecture does at its head (softcap, logit scale) is done here too. Call it in chunks: the
    logits of a block do not fit in memory.
    """
    head = model.lm_head
    if head is not None:
        yield lambda hidden_ND: _in_float32(head(hidden_ND))
        return
    own = local()

    def backbone(*_: object, **__: object) -> _BackboneOutput:
        return _BackboneOutput(own.hidden_ND[None])

    def logits(hidden_ND: Tensor) -> Tensor:
        own.hidden_ND = hidden_ND
        tokens = torch.zeros(1, hidden_ND.shape[0], dtype=torch.int64, device=hidden_ND.device)
        return _in_float32(model.module(input_ids=tokens, use_cache=False).logits[0])

    with patched(model.backbone, backbone):
        yield logits


def _in_float32(logits_NV: Tensor) -> Tensor:
    return logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))


def logits(model: LanguageModel, hidden_ND: Tensor) -> Tensor:
    """Logits [N, V] of final hidden states, as `head_of` gives them."""
    with head_of(model) as head:
        return head(hidden_ND)


@torch.no_grad()
def check_head(model: LanguageModel, tokens_RT: Tensor) -> None:
    """Raise ConfigError unless `logits` of the final hidden states are the model's own logits; find `lm_head`."""
    own_RTV: Tensor = model.module(input_ids=tokens_RT, use_cache=False).logits
    try:
        hidden_ND = model.final_hidden(tokens_RT).flatten(0, 1)
        ours_NV = logits(model, hidden_ND)
        head = model.module.get_output_embeddings()  # type: ignore[operator]  # typed as a tensor or module
        # To the last bit: dividing by a softcap and multiplying again shows even where logits are small.
        if isinstance(head, nn.Linear) and torch.equal(_in_float32(head(hidden_ND)), ours_NV):
            model.lm_head = head
        same = close(ours_NV, own_RTV.flatten(0, 1).to(ours_NV.dtype), own_RTV.dtype)
    except (AttributeError, TypeError, AssertionError):
        same = False
    if not same:
        raise ConfigError(
            f"model.path={model.config.path}: the lm head of {type(model.module).__name__} is not supported"
            " (its logits are not a function of the final hidden states alone); choose another model"
        )
