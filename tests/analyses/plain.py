"""The same passes with nothing of ours but the weights: transformers, its hooks, and a softmax over all logits."""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from sae_sweep.analyses.session.finished import FinishedSae, finished_saes
from sae_sweep.analyses.session.session import Session

Change = Callable[[Tensor, Tensor], Tensor]
"""Of an activation [R, T, D] and of where it counts [R, T]."""


def in_float64(root: Path, label: str) -> FinishedSae:
    """A finished member, and its model, in float64."""
    (sae,) = finished_saes(root, [label])
    member = sae.member
    config = replace(member.config, model=replace(member.config.model, dtype="float64"))
    sae.__dict__["sae"] = sae.sae.mapped(Tensor.double)
    sae.__dict__["member"] = replace(member, config=config)
    return sae


def in_bfloat16(root: Path, label: str) -> FinishedSae:
    """A finished member, in float32, of its model in bfloat16."""
    (sae,) = finished_saes(root, [label])
    member = sae.member
    config = replace(member.config, model=replace(member.config.model, dtype="bfloat16"))
    sae.__dict__["member"] = replace(member, config=config)
    return sae


class PlainModel:
    """A Llama in float64, and the held-out rows of a sweep whose rows all count but for their first position."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
        (stream,) = Session.of(finished_saes(root)).streams.opened
        self.tokens_RT = stream.evaluator.tokens_RT
        self.counted_RT = (self.tokens_RT > 2).clone()  # 0, 1, 2 are special
        self.counted_RT[:, 0] = False

    def in_other(self, folder: Path) -> "PlainModel":
        """The same rows in another model."""
        made = copy(self)
        made.module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
        return made

    @torch.no_grad()
    def logits(self, layer: int | None = None, change: Change | None = None) -> Tensor:
        """[R, T, V], with what the block of that layer gives changed."""

        def hook(module: object, args: object, output: Tensor | tuple[Tensor, ...]) -> object:
            first = output[0] if isinstance(output, tuple) else output
            changed = change(first, self.counted_RT)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handle = None if layer is None else self.module.model.layers[layer].register_forward_hook(hook)
        logits = self.module(input_ids=self.tokens_RT, use_cache=False).logits
        if handle is not None:
            handle.remove()
        return logits

    def activation(self, layer: int) -> Tensor:
        """[R, T, D] after a block."""
        found = []

        def keep(x_RTD: Tensor, _: Tensor) -> Tensor:
            found.append(x_RTD.clone())
            return x_RTD

        self.logits(layer, keep)
        return found[0]

    def kl_and_ce(self, layer: int, change: Change, measured_RT: Tensor | None = None) -> tuple[float, float]:
        """Mean KL from the clean pass and mean CE, over counted positions whose next token is not special."""
        clean, changed = self.logits().log_softmax(-1), self.logits(layer, change).log_softmax(-1)
        target_RT = self.counted_RT[:, :-1] & (self.tokens_RT[:, 1:] > 2)
        if measured_RT is not None:
            target_RT = target_RT & measured_RT[:, :-1]
        kl_RT = (clean.exp() * (clean - changed)).sum(-1)[:, :-1]
        ce_RT = -changed[:, :-1].gather(-1, self.tokens_RT[:, 1:, None])[..., 0]
        return kl_RT[target_RT].mean().item(), ce_RT[target_RT].mean().item()
