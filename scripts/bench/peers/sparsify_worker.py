"""sparsify's own training step, for `scripts/bench/step.py --install-peers`; run in an environment that has it.

Its step is in the middle of `Trainer.fit`, behind hooks of a language model, so it is written out here: the calls that
`fit` makes, in its order, with its default optimizer (schedule-free signum) and its decoder. It starts from our
trained weights; its lr is tiny, as for sae-lens. The bf16 autocast that its forward asks for on a GPU is left out.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from schedulefree import ScheduleFreeWrapper  # type: ignore[import-not-found]
from sparsify.config import SparseCoderConfig  # type: ignore[import-not-found]
from sparsify.sign_sgd import SignSGD  # type: ignore[import-not-found]
from sparsify.sparse_coder import SparseCoder  # type: ignore[import-not-found]
from torch import Tensor

from scripts.bench.peers.protocol import Cannot, serve

LR = 1e-6
AUXK_COEFFICIENT = 1 / 32
DEAD_AFTER = 10_000_000
"""Tokens: its default."""
SILENT = 2**40


class Sparsify:
    """One `SparseCoder` and its optimizer."""

    def __init__(self, request: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        if request["architecture"] != "topk":
            raise Cannot("it has topk alone")
        config = SparseCoderConfig(num_latents=request["width"], k=round(request["l0"]))
        self._coder = SparseCoder(request["d"], config, request["device"], torch.float32)
        places = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
        with torch.no_grad():
            for name, own in self._coder.named_parameters():
                own.copy_(weights[places[name]])
        # Without the decorator, which would turn autocast on.
        self._forward = getattr(SparseCoder.forward, "__wrapped__", SparseCoder.forward)
        self._optimizer = ScheduleFreeWrapper(SignSGD(self._coder.parameters(), lr=LR), momentum=0.95)
        self._optimizer.train()
        self._silent_F = torch.zeros(request["width"], dtype=torch.long, device=request["device"])
        self._fired_F = torch.zeros(request["width"], dtype=torch.bool, device=request["device"])
        self._auxk = bool(request["auxk"])

    def silence(self, share: float) -> None:
        self._silent_F.zero_()
        self._silent_F[: round(share * len(self._silent_F))] = SILENT

    def step(self, x_BD: Tensor) -> Tensor:
        coder = self._coder
        coder.set_decoder_norm_to_unit_norm()
        dead_F = self._silent_F > DEAD_AFTER if self._auxk else None
        variance = (x_BD - x_BD.mean(0)).pow(2).sum()
        out = self._forward(coder, x=x_BD, y=x_BD, dead_mask=dead_F, total_variance=variance)
        self._fired_F[out.latent_indices.flatten()] = True
        float(out.fvu.detach())  # it adds this up for its log, each step
        (out.fvu + AUXK_COEFFICIENT * out.auxk_loss).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        self._optimizer.step()
        self._optimizer.zero_grad()
        with torch.no_grad():
            self._silent_F += len(x_BD)
            self._silent_F[self._fired_F] = 0
            self._fired_F.zero_()
        acts_BK: Tensor = out.latent_acts
        return acts_BK

    def l0(self, fired: Tensor) -> float:
        return float((fired.detach() > 0).sum()) / len(fired)


if __name__ == "__main__":
    serve("sparsify", version("eai-sparsify"), Sparsify)
