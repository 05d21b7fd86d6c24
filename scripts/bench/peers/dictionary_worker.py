"""dictionary_learning's own training step, for `scripts/bench/step.py --install-peers`; run in an environment that has
it.

It starts from our trained weights in its own trainers, with their optimizers, clipping and defaults, on inputs that are
scaled already. Its lr is tiny, as for sae-lens.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer  # type: ignore[import-not-found]
from dictionary_learning.trainers.gdm import GatedSAETrainer  # type: ignore[import-not-found]
from dictionary_learning.trainers.jumprelu import JumpReluTrainer  # type: ignore[import-not-found]
from dictionary_learning.trainers.standard import StandardTrainer  # type: ignore[import-not-found]
from dictionary_learning.trainers.top_k import TopKTrainer  # type: ignore[import-not-found]
from torch import Tensor

from scripts.bench.peers.protocol import Cannot, serve

LR = 1e-6
SILENT = 2**40
STEPS = 10**6
LINEAR = {"encoder.weight": "W_enc", "encoder.bias": "b_enc"}
GATED = {"encoder.weight": "W_enc", "decoder_bias": "b_dec", "gate_bias": "b_gate", "mag_bias": "b_mag"}
PLACES: Mapping[str, Mapping[str, str]] = {
    "standard": {**LINEAR, "bias": "b_dec"},
    "gated": {**GATED, "r_mag": "r_mag"},
    "topk": {**LINEAR, "b_dec": "b_dec"},
    "batchtopk": {**LINEAR, "b_dec": "b_dec"},
    "jumprelu": {"b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"},
}
"""Our name of each of its parameters that has our layout."""


def _trainer(request: Mapping[str, Any]) -> Any:
    """Its trainer of the same loss; what it has of its own stays at its default."""
    common = {"steps": STEPS, "activation_dim": request["d"], "dict_size": request["width"], "layer": 0, "lm_name": ""}
    common |= {"lr": LR, "warmup_steps": 0, "device": request["device"]}
    penalty = {"l1_penalty": request["coefficient"], "sparsity_warmup_steps": 0}
    match request["architecture"]:
        case "standard":
            return StandardTrainer(**penalty, **common)
        case "gated":
            return GatedSAETrainer(**penalty, **common)
        case "topk":
            return TopKTrainer(k=round(request["l0"]), **common)
        case "batchtopk":
            return BatchTopKTrainer(k=round(request["l0"]), **common)
        case "jumprelu":
            own = {"bandwidth": request["bandwidth"], "target_l0": request["l0"], "sparsity_warmup_steps": 0}
            return JumpReluTrainer(sparsity_penalty=request["variance"], **own, **common)
    raise Cannot(f"it has no {request['architecture']}")


class DictionaryLearning:
    """One of its trainers."""

    def __init__(self, request: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        self._trainer, self._at = _trainer(request), 1  # step 0 would set b_dec anew
        placed = {theirs: weights[ours] for theirs, ours in PLACES[request["architecture"]].items()}
        if request["architecture"] == "jumprelu":
            placed |= {"W_enc": weights["W_enc"].T, "threshold": weights["log_threshold"].exp()}
        else:
            placed["decoder.weight"] = weights["W_dec"].T
        with torch.no_grad():
            for name, own in self._trainer.ae.named_parameters():
                own.copy_(placed[name])
        self._chosen = {"use_threshold": False} if request["architecture"] == "batchtopk" else {}

    def silence(self, share: float) -> None:
        silent_F = getattr(self._trainer, "num_tokens_since_fired", None)
        if silent_F is not None:
            silent_F.zero_()
            silent_F[: round(share * len(silent_F))] = SILENT

    def step(self, x_BD: Tensor) -> Tensor:
        self._trainer.update(self._at, x_BD)
        self._at += 1
        return x_BD

    @torch.no_grad()
    def l0(self, fired: Tensor) -> float:
        """Of the batch, encoded once more: `update` does not say."""
        return float((self._trainer.ae.encode(fired, **self._chosen) > 0).sum()) / len(fired)


if __name__ == "__main__":
    serve("dictionary_learning", version("dictionary-learning"), DictionaryLearning)
