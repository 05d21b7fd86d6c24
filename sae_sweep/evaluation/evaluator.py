"""What is evaluated, what comes of it, and what does it: one kind of evaluator for each source of activations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from sae_sweep.activations.first_block import FirstBlock
from sae_sweep.model.sites import model_of
from sae_sweep.saes.inference import InferenceSae


@dataclass(frozen=True)
class SplicedSae:
    """An SAE to evaluate, and the site where its reconstructions are spliced in."""

    label: str
    hook: str
    sae: InferenceSae
    steps: int = 0
    """Training steps it has taken."""
    batch_size: int = 1
    """Rows of each."""
    reads: str | None = None
    """The hook that it reads; None is `hook`."""
    beside: tuple[str, ...] = ()
    """A crosscoder's other hooks, read and spliced as `hook` is; where a cross-layer transcoder writes besides."""
    watched: tuple[str, ...] = ()
    """Hooks after all these, where the spliced model's activations are compared with clean ones."""
    reads_beside: tuple[str, ...] = ()
    """What a cross-layer transcoder reads besides."""

    @property
    def hooks(self) -> tuple[str, ...]:
        """Where it is spliced."""
        return (self.hook, *self.beside)

    @property
    def passes(self) -> tuple[tuple[str, ...], ...]:
        """The hooks that it is spliced at together, pass by pass: a crosscoder's in one each, layers all at once."""
        return (self.hooks,) if self.reads_beside else tuple((hook,) for hook in self.hooks)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The hooks that it reads."""
        return self.hooks if self.reads is None else (self.reads, *self.reads_beside)

    @property
    def sites(self) -> tuple[str, ...]:
        """What it reads and reconstructs: a position whose activation is too long at one of them counts at none."""
        return tuple(dict.fromkeys((*self.inputs, *self.hooks)))

    @property
    def models(self) -> int:
        """How many models these sites are in."""
        return 1 + max(map(model_of, self.hooks))

    def on(self, device: torch.device) -> "SplicedSae":
        """The same, with its tensors on a device."""
        return replace(self, sae=self.sae.mapped(lambda tensor: tensor.to(device)))


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one SAE, and the share of counted tokens that each of its latents fires on."""

    sae: InferenceSae
    metrics: dict[str, float | None]
    frequency_F: Tensor
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    """By name the sums [R], in float64, over each held-out row that the metrics are ratios of: tokens, l0 and
    squared_error over counted positions, targets, ce, kl, ce_clean and ce_zero over those with a target. Empty where
    there are no rows of a language model."""
    layers: tuple[dict[str, float | None], ...] = ()
    """Of a cross-layer transcoder, what is known of each layer: fvu, l0, alive."""
    core: Mapping[str, float] = field(default_factory=dict)
    """What SAEBench's core evaluation has of its own, where that is asked for."""


class Evaluator(Protocol):
    """Evaluates any number of SAEs on held-out rows, the same each time."""

    @property
    def first_block(self) -> FirstBlock:
        """What it goes by of the first block of the stream that SAEs were trained on."""

    def evaluate(
        self, saes: Sequence[SplicedSae], done: Callable[[float], None] = lambda share: None
    ) -> dict[str, Evaluation]:
        """Evaluate SAEs, and return what is found by label; `done` is told the share of the work that is done."""

    def in_smaller_batches(self) -> "Evaluator | None":
        """Return the same evaluator, reading half as many rows at a time; None where that is not to be had."""
