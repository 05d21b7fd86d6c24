"""The lm head: final hidden states to logits."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import local
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

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


class Head:
    """From final hidden states to logits, in float32 (float64 for a float64 model); several threads may call it."""

    def __init__(self, logits: Callable[[Tensor, slice], Tensor], width: int, tiled: bool) -> None:
        """`width` is how many tokens there are; `tiled` whether the logits of some of them can be had alone."""
        self.width, self._logits, self._tiled = width, logits, tiled

    def __call__(self, hidden_ND: Tensor, tokens: slice | None = None) -> Tensor:
        """Logits [N, V] of all tokens, or [N, v] of those in a tile."""
        logits_NV = self._logits(hidden_ND, slice(0, self.width) if tokens is None else tokens).to(hidden_ND.device)
        return logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))

    def tiles(self, most: int) -> list[slice]:
        """The vocabulary in parts of at most so many tokens; in one where it cannot be parted."""
        step = most if self._tiled else self.width
        return [slice(first, min(first + step, self.width)) for first in range(0, self.width, step)]


@contextmanager
def head_of(model: LanguageModel) -> Iterator[Head]:
    """The head of a model, which computes nothing else while this lasts.

    Where logits are more than a product, the model's own forward computes them, with its backbone replaced by the
    hidden states, so whatever an architecture does at its head (softcap, logit scale) is done here too; for a tile its
    output embedding has the rows of the tile alone.
    """
    module: Any = model.module  # of transformers, whose methods torch's type of a module does not have
    width, embedding = model.facts.vocab_size, module.get_output_embeddings()
    if model.lm_head is not None:
        yield Head(partial(_product, model.lm_head), model.lm_head.weight.shape[0], tiled=True)
        return
    own = local()

    def backbone(*_: object, **__: object) -> _BackboneOutput:
        return _BackboneOutput(own.hidden_ND[None])

    def logits(hidden_ND: Tensor, tokens: slice) -> Tensor:
        own.hidden_ND, own.tokens = hidden_ND, tokens
        ids = torch.zeros(1, hidden_ND.shape[0], dtype=torch.int64, device=hidden_ND.device)
        made: Tensor = model.module(input_ids=ids, use_cache=False).logits[0]
        return made

    with patched(model.backbone, backbone), ExitStack() as stack:
        if model.tiled:
            stack.enter_context(patched(embedding, lambda hidden: _product(embedding, hidden, own.tokens)))
        yield Head(logits, width, model.tiled)


def _product(embedding: Any, hidden: Tensor, tokens: slice) -> Tensor:
    bias = getattr(embedding, "bias", None)
    hidden = hidden.to(embedding.weight)  # a model may keep its residual stream in another dtype, or elsewhere
    return linear(hidden, embedding.weight[tokens], None if bias is None else bias[tokens])


def logits(model: LanguageModel, hidden_ND: Tensor) -> Tensor:
    """Logits [N, V] of final hidden states, as `head_of` gives them."""
    with head_of(model) as head:
        return head(hidden_ND)


@torch.no_grad()
def check_head(model: LanguageModel, tokens_RT: Tensor) -> None:
    """Raise ConfigError unless `logits` of the final hidden states are the model's own; find `lm_head` and `tiled`."""
    _check_there(model)
    own_NV: Tensor = model.module(input_ids=tokens_RT, use_cache=False).logits.flatten(0, 1)
    try:
        hidden_ND = model.final_hidden(tokens_RT).flatten(0, 1)
        ours_NV = logits(model, hidden_ND)
        head = model.module.get_output_embeddings()  # type: ignore[operator]  # typed as a tensor or module
        # To the last bit: dividing by a softcap and multiplying again shows even where logits are small.
        if isinstance(head, nn.Linear) and torch.equal(
            _product(head, hidden_ND, slice(None)).to(ours_NV.dtype), ours_NV
        ):
            model.lm_head = head
        same = close(ours_NV, own_NV.to(ours_NV.dtype), own_NV.dtype)
    except (AttributeError, TypeError, AssertionError):
        same = False
    if not same:
        raise ConfigError(
            f"model.path={model.config.path}: the lm head of {type(model.module).__name__} is not supported"
            " (its logits are not a function of the final hidden states alone); choose another model"
        )
    model.tiled = model.lm_head is not None or _parts_as_whole(model, hidden_ND, ours_NV, own_NV.dtype)


def _check_there(model: LanguageModel) -> None:
    weight = getattr(model.module.get_output_embeddings(), "weight", None)  # type: ignore[operator]
    if weight is not None and weight.is_meta:
        raise ConfigError(
            "model.device_map: the lm head is offloaded, and is read for each tile of logits; give it (and embeddings"
            " that are one with it) a GPU, or the cpu where all is there"
        )


def _parts_as_whole(model: LanguageModel, hidden_ND: Tensor, whole_NV: Tensor, dtype: torch.dtype) -> bool:
    """Whether tokens' logits can be had without the others': what follows the product does not look at those."""
    model.tiled = True
    try:
        with head_of(model) as head:
            tiles = head.tiles(whole_NV.shape[1] // 2)
            parts_NV = torch.cat([head(hidden_ND, tokens) for tokens in tiles], dim=1)
    except (AttributeError, TypeError, RuntimeError):
        return False
    return parts_NV.shape == whole_NV.shape and close(parts_NV, whole_NV, dtype)
