"""What a router of experts makes of logits that it did not compute."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sae_sweep.model.blocks import Router


def routed(router: Router, logits_NE: Tensor, more: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """All that the router returns for these logits [N, E]: it reads them in place of hidden states, through a matrix
    that leaves them as they are. `more` and `named` are its other arguments."""
    width = int(router.module._parameters["weight"].shape[1])  # type: ignore[union-attr]  # it has one
    padded_ND = nn.functional.pad(logits_NE, (0, width - logits_NE.shape[1]))
    with _keeping(router.module, logits_NE):
        return type(router.module).forward(router.module, padded_ND, *more, **named)


@contextmanager
def _keeping(module: nn.Module, like_NE: Tensor) -> Iterator[None]:
    """While this lasts, the router's matrix is one that keeps the first E numbers, and it has no bias."""
    own = {name: value for name in ("weight", "bias") if (value := module._parameters.get(name)) is not None}
    eye_ED = torch.eye(like_NE.shape[1], own["weight"].shape[1], dtype=like_NE.dtype, device=like_NE.device)
    kept = {"weight": eye_ED, "bias": torch.zeros_like(eye_ED[:, 0])}
    try:
        for name in own:
            module._parameters[name] = nn.Parameter(kept[name], requires_grad=False)
        yield
    finally:
        module._parameters.update(own)
