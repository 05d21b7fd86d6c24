"""sae-lens's own training step, for `scripts/bench/step.py`; run in an environment that has it (`make .venv-interop`).

It starts from our trained weights, so both sides have the same L0, in its own `SAETrainer` with its own Adam, gradient
clipping and defaults, without autocast, on inputs that are scaled already. Its lr is tiny: fresh moments would else
move every weight by a whole lr, and what a step costs does not depend on it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from sae_lens import (  # type: ignore[import-not-found]
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardTrainingSAEConfig,
    TopKTrainingSAEConfig,
    TrainingSAE,
    TrainingSAEConfig,
    __version__,
)
from sae_lens.config import LoggingConfig, SAETrainerConfig  # type: ignore[import-not-found]
from sae_lens.registry import get_sae_training_class  # type: ignore[import-not-found]
from sae_lens.training.sae_trainer import SAETrainer  # type: ignore[import-not-found]
from torch import Tensor

from scripts.bench.peers.protocol import Cannot, serve

LR = 1e-6
SILENT = 1e9


def _config(request: Mapping[str, Any]) -> TrainingSAEConfig:
    """Its config of the same loss; what its class has of its own stays at its default."""
    l0, width, coefficient = request["l0"], request["width"], request["coefficient"]
    common = {"d_in": request["d"], "d_sae": width, "device": request["device"], "dtype": "float32"}
    jumps = {"jumprelu_init_threshold": 1e-3, "jumprelu_bandwidth": request["bandwidth"]}
    match request["architecture"]:
        case "standard":
            return StandardTrainingSAEConfig(l1_coefficient=coefficient, **common)
        case "gated":
            return GatedTrainingSAEConfig(l1_coefficient=coefficient, **common)
        case "topk":
            return TopKTrainingSAEConfig(k=round(l0), **common)
        case "batchtopk":
            return BatchTopKTrainingSAEConfig(k=l0, **common)
        case "matryoshka":
            groups = request["groups"]
            widths = [width * (2**g - 1) // 2**groups for g in range(1, groups)] + [width]
            return MatryoshkaBatchTopKTrainingSAEConfig(k=l0, matryoshka_widths=widths, **common)
        case "jumprelu":  # 2 / T (L0 - T)^2 per token: this coefficient makes it ours, V (L0 / T - 1)^2
            quadratic = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": l0}
            quadratic["l0_coefficient"] = request["variance"] / (2 * l0)
            return JumpReLUTrainingSAEConfig(**quadratic, **jumps, **common)
        case "jumprelu_anthropic":
            tanh = {"jumprelu_sparsity_loss_mode": "tanh", "jumprelu_ste_to_input": True}
            lift = {"l0_coefficient": coefficient, "pre_act_loss_coefficient": 3e-6, "apply_b_dec_to_input": False}
            return JumpReLUTrainingSAEConfig(**tanh, **lift, **jumps, **common)
    raise Cannot(f"it has no {request['architecture']}")


def _place(sae: TrainingSAE[Any], weights: Mapping[str, Tensor]) -> None:
    """Our weights in its layout: W_enc is [D, F] there."""
    placed = dict(weights)
    if "log_threshold" in placed:
        placed["threshold"] = placed.pop("log_threshold").exp()
    with torch.no_grad():
        for name, own in sae.named_parameters():
            own.copy_(placed[name].T if name == "W_enc" else placed[name])


class SaeLens:
    """One SAE in `SAETrainer`."""

    def __init__(self, request: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        config = _config(request)
        sae = get_sae_training_class(config.architecture())[0](config)
        _place(sae, weights)
        trainer_config = SAETrainerConfig(
            total_training_samples=10**9,
            train_batch_size_samples=request["batch"],
            lr=LR,
            lr_end=LR / 10,
            device=request["device"],
            autocast=False,
            logger=LoggingConfig(log_to_wandb=False),
        )
        self._trainer = SAETrainer(cfg=trainer_config, sae=sae.to(request["device"]), data_provider=iter(()))

    def silence(self, share: float) -> None:
        silent_F = self._trainer.n_forward_passes_since_fired
        silent_F.zero_()
        silent_F[: round(share * len(silent_F))] = SILENT

    def step(self, x_BD: Tensor) -> Tensor:
        output = self._trainer.step(x_BD)
        self._trainer.n_training_steps += 1
        codes_BF: Tensor = output.feature_acts
        return codes_BF

    def l0(self, fired: Tensor) -> float:
        return float((fired.detach() > 0).sum()) / len(fired)


if __name__ == "__main__":
    serve("sae-lens", __version__, SaeLens)
