"""SAEs that SAELens itself saves, and its own answers. Run it in an environment that has sae-lens:

    .venv-interop/bin/python scripts/write_saelens.py FOLDER

For each architecture of its trainers there is `<name>-training`, a checkpoint, and `<name>-inference`, what is made of
it; for each of its transcoders `<name>-inference`. Weights are random. Beside each lies `saelens_check.safetensors`:
activations `x` [B, d], and the `codes` [B, F] and `reconstruction` [B, d] of the SAE that is used.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE  # type: ignore[import-not-found]
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY  # type: ignore[import-not-found]
from safetensors.torch import save_file

CHECK = "saelens_check.safetensors"
D, F, K = 24, 60, 7
TRAINED = ("standard", "gated", "topk", "jumprelu", "batchtopk", "matryoshka_batchtopk")
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")


@torch.no_grad()
def disturbed(sae: Any) -> None:
    """Give parameters random values, of the size that trained ones have."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in sae.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(parameter + (0.2 * noise if parameter.dim() == 2 else 0.1 * noise))
        if name == "log_threshold":
            parameter.copy_(-1 + 0.2 * noise)
        if name == "threshold":
            parameter.copy_(0.5 + 0.1 * noise.abs())


@torch.no_grad()
def answered(folders: list[Path], sae: Any) -> None:
    """Write what it makes of activations into folders."""
    x = 2 * torch.randn(200, D, generator=torch.Generator().manual_seed(1))
    answers = {"x": x, "codes": sae.encode(x), "reconstruction": sae(x)}
    for folder in folders:
        save_file({name: tensor.contiguous() for name, tensor in answers.items()}, folder / CHECK)


def main(root: Path) -> None:
    """Write all of them."""
    for name in TRAINED:
        cls, config = SAE_TRAINING_CLASS_REGISTRY[name]
        sizes = {"matryoshka_widths": [20, F]} if name.startswith("matryoshka") else {}
        k = {"k": K} if "topk" in name else {}
        sae = cls(config(d_in=D, d_sae=F, device="cpu", **k, **sizes))
        disturbed(sae)
        if "batchtopk" in name:
            sae.topk_threshold.fill_(1.5)
        folders = [root / f"{name}-training", root / f"{name}-inference"]
        sae.save_model(folders[0])
        sae.save_inference_model(folders[1])
        answered(folders, SAE.load_from_disk(folders[1], device="cpu"))
    for name in TRANSCODERS:
        cls, config = SAE_CLASS_REGISTRY[name]
        sae = cls(config(d_in=D, d_sae=F, d_out=D, device="cpu", apply_b_dec_to_input=False))
        disturbed(sae)
        folder = root / f"{name}-inference"
        sae.save_model(folder)
        answered([folder], SAE.load_from_disk(folder, device="cpu"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
