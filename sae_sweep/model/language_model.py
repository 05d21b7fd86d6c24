"""The loaded language model, as everything else sees it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sae_sweep.config.schema import ModelConfig
from sae_sweep.model.blocks import BlockMap
from sae_sweep.model.facts import ModelFacts


@dataclass
class Passes:
    """Forward passes made so far, by purpose. The check made once per site before any suffix pass is not counted."""

    harvest: int = 0
    clean: int = 0
    suffix: int = 0


class Within(Protocol):
    """What a forward pass is told beside its tokens."""

    def arguments(self, tokens_RT: Tensor) -> Mapping[str, Tensor]:
        """By the model's own names of them."""


@dataclass(eq=False)
class LanguageModel:
    """A frozen causal language model on its device, and its tokenizer (None where the folder ships none).

    With `model.device_map` its modules are elsewhere; what it is asked for is on its device all the same.
    Exactly one of `block_map` (model.backend=hf) and `bridge` (transformer_lens) is set. The bridge rebuilds `module`
    in place, so `module` is what runs with either.
    """

    module: nn.Module
    tokenizer: Any
    device: torch.device
    config: ModelConfig
    facts: ModelFacts
    block_map: BlockMap | None = None
    bridge: Any = None
    lm_head: nn.Linear | None = None
    """Where logits are nothing but its product with final hidden states (`head.check_head` finds out)."""
    tiled: bool = False
    """Whether logits of some tokens can be computed without those of the others; found there too."""
    passes: Passes = field(default_factory=Passes)
    within: Within | None = None
    """What keeps attention within the documents of a row (`within.within_documents`); else it reads whole rows."""

    @property
    def backbone(self) -> nn.Module:
        """The model below its lm head: embeddings, blocks and final norm."""
        backbone = self.module.get_decoder()  # type: ignore[operator]  # typed as a tensor or module
        if backbone is self.module:  # Llama 4 does not find its own
            backbone = self.module.model
        assert isinstance(backbone, nn.Module)
        return backbone

    @property
    def entrance(self) -> torch.device:
        """Where it reads token ids."""
        embedding: Any = None if self.config.device_map is None else self.module.get_input_embeddings()  # type: ignore[operator]
        offloaded = embedding is None or embedding.weight.is_meta
        return self.device if offloaded else embedding.weight.device

    @property
    def special_ids(self) -> Tensor:
        """Token ids that are no text, int64 on the CPU; none without a tokenizer."""
        return torch.tensor(self.tokenizer.all_special_ids if self.tokenizer is not None else [], dtype=torch.int64)

    @property
    def bos_id(self) -> int | None:
        """The id that rows of text begin with, where the tokenizer has one."""
        return None if self.tokenizer is None else self.tokenizer.bos_token_id

    def probe_tokens(self) -> Tensor:
        """A few tokens [2, 8], the same each time, on which the model is measured and checked."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(self.facts.vocab_size, (2, 8), generator=generator).to(self.device)

    def final_hidden(self, tokens_RT: Tensor) -> Tensor:
        """The final hidden states [R, T, D] of one whole forward pass: what the lm head reads. No KV cache."""
        tokens_RT = tokens_RT.to(self.entrance, torch.int64)
        if self.bridge is None:
            told = {} if self.within is None else self.within.arguments(tokens_RT)
            return _hidden(self.backbone(input_ids=tokens_RT, use_cache=False, **told)).to(self.device)
        caught: list[Tensor] = []

        def catch(_: object, __: object, output: Any) -> None:
            caught.append(_hidden(output))
            raise _HeadReached

        # The bridge's own forward sets up hooks that a call of the module would leave out.
        with self.backbone.register_forward_hook(catch), suppress(_HeadReached):
            self.bridge(tokens_RT, return_type="logits", use_cache=False)
        return caught[0]


class _HeadReached(Exception):  # noqa: N818 - it reports no error
    pass


def _hidden(output: Any) -> Tensor:
    hidden = output.last_hidden_state
    assert isinstance(hidden, Tensor)
    return hidden
