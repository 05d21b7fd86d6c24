"""The language model that SAEs are used on: a thin object around what sweeps run."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.load import load_model


class Model:
    """A frozen language model on its device, with its tokenizer.

    Text becomes one row of tokens that begins with BOS where the tokenizer has one, as in training.
    """

    def __init__(self, running: LanguageModel) -> None:
        self.running = running
        """The model as sweeps run it."""

    @property
    def module(self) -> nn.Module:
        """The model of transformers."""
        return self.running.module

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers. Raises ConfigError where the model ships none."""
        if self.running.tokenizer is None:
            raise ConfigError(f"model.path={self.running.config.path} ships no tokenizer; give token ids")
        return self.running.tokenizer

    def tokens(self, text: str) -> Tensor:
        """[1, T] int64 on the model's device."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        bos = [] if self.running.bos_id is None else [self.running.bos_id]
        return torch.tensor([bos + ids], device=self.running.device)

    def strings(self, tokens: Tensor | Sequence[int]) -> list[str]:
        """What each token id reads, one by one."""
        ids = tokens.flatten().tolist() if isinstance(tokens, Tensor) else list(tokens)
        return [self.tokenizer.decode([each], clean_up_tokenization_spaces=False) for each in ids]

    @torch.no_grad()
    def generate(self, prompt: str | Tensor, max_new_tokens: int = 20, **options: Any) -> Any:
        """Go on from a text, or from tokens [R, T], with a KV cache; text gives the new text, tokens the whole rows.

        `options` are those of transformers' generate, or of TransformerBridge's where that is the backend.
        """
        text = isinstance(prompt, str)
        tokens_RT = self.tokens(prompt) if isinstance(prompt, str) else prompt.to(self.running.device)
        options = {"max_new_tokens": max_new_tokens, "do_sample": False, **options}
        if self.running.bridge is None:
            options.setdefault("attention_mask", torch.ones_like(tokens_RT))
            if self.running.tokenizer is not None:
                options.setdefault("pad_token_id", self.running.tokenizer.pad_token_id or 0)
            module: Any = self.module  # of transformers, whose methods torch's type of a module does not have
            made_RT = module.generate(tokens_RT, **options)
        else:
            made_RT = self.running.bridge.generate(tokens_RT, return_type="tokens", verbose=False, **options)
        if not text:
            return made_RT
        return self.tokenizer.decode(made_RT[0, tokens_RT.shape[1] :], skip_special_tokens=True)

    def __call__(self, prompt: str | Tensor) -> Tensor:
        """The logits [R, T, V] of a text or of tokens [R, T]; differentiable in what interventions put in place."""
        tokens_RT = self.tokens(prompt) if isinstance(prompt, str) else prompt.to(self.running.device)
        logits: Tensor
        if self.running.bridge is None:
            logits = self.module(input_ids=tokens_RT, use_cache=False).logits
        else:
            logits = self.running.bridge(tokens_RT, return_type="logits")
        return logits


@lru_cache(maxsize=1)
def open_model(config: ModelConfig) -> Model:
    """The model of a config. The last one is kept, so that asking again costs nothing."""
    return Model(load_model(config))


@lru_cache(maxsize=1)
def open_second(config: ModelConfig) -> Model:
    """The same of the second model of a crosscoder over two, which is kept beside the first."""
    return Model(load_model(config))


def running(model: Model | LanguageModel) -> LanguageModel:
    """The model as sweeps run it."""
    return model.running if isinstance(model, Model) else model
