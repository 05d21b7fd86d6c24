"""Activations of texts at a hook."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sae_sweep.api.model import Model
from sae_sweep.model.harvest import harvest as harvest_tokens
from sae_sweep.model.language_model import LanguageModel


def harvest(model: Model, hook: str, texts: str | Sequence[str] | Tensor) -> Any:
    """The activations of one text [T, d], of several texts as a list, or of tokens [R, T] as [R, T, d].

    Positions are all those that the model reads, BOS among them. Raises ConfigError for a hook that it does not serve.

    >>> ss.harvest(model, "blocks.2.hook_resid_post", "def f(x):").shape
    torch.Size([6, 128])
    """
    if isinstance(texts, Tensor):
        return harvested(model.running, hook, texts.to(model.running.device))
    if isinstance(texts, str):
        return harvested(model.running, hook, model.tokens(texts))[0]
    return [harvested(model.running, hook, model.tokens(text))[0] for text in texts]


def harvested(model: LanguageModel, hook: str, tokens_RT: Tensor) -> Tensor:
    """[R, T, d] of one hook."""
    return harvest_tokens(model, tokens_RT, [hook])[hook]
