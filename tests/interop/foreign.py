"""SAEs as other programs save them, of random weights, and what each program makes of activations, in its own words."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

D, F, K = 24, 60, 7
THRESHOLD, SCALE = 1.1, 0.37

Answers = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Codes and reconstructions of activations [B, D]."""


@dataclass(frozen=True)
class Weights:
    """Of an autoencoder, in rows of latents; `norms` are those of the decoder rows."""

    enc_FD: Tensor
    dec_FD: Tensor
    b_F: Tensor
    second_F: Tensor
    third_F: Tensor
    b_D: Tensor
    skip_DD: Tensor


def weights(seed: int = 0) -> Weights:
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(F, D, generator=g)
    small = (0.3 * torch.randn(F, generator=g) for _ in range(3))
    enc = rows / 5 + 0.05 * torch.randn(F, D, generator=g)
    return Weights(enc, rows / 3, *small, torch.randn(D, generator=g), torch.randn(D, D, generator=g) / D)


W = weights()


def activations(count: int = 200) -> Tensor:
    return 2 * torch.randn(count, D, generator=torch.Generator().manual_seed(5))


def relu(x: Tensor, subtract: bool = True) -> tuple[Tensor, Tensor]:
    f = ((x - W.b_D if subtract else x) @ W.enc_FD.T + W.b_F).clamp(min=0)
    return f, f @ W.dec_FD + W.b_D


def above(x: Tensor, threshold: Tensor | float, subtract: bool = True) -> tuple[Tensor, Tensor]:
    f, _ = relu(x, subtract)
    f = f * (f > threshold)
    return f, f @ W.dec_FD + W.b_D


def largest(x: Tensor, subtract: bool = True) -> tuple[Tensor, Tensor]:
    f, _ = relu(x, subtract)
    kept = f.topk(K, dim=1)
    f = torch.zeros_like(f).scatter(1, kept.indices, kept.values)
    return f, f @ W.dec_FD + W.b_D


def gated(x: Tensor) -> tuple[Tensor, Tensor]:
    z = (x - W.b_D) @ W.enc_FD.T
    f = (z + W.b_F > 0) * (z * W.third_F.exp() + W.second_F).clamp(min=0)
    return f, f @ W.dec_FD + W.b_D


def rescaled(x: Tensor, threshold: float | None) -> tuple[Tensor, Tensor]:
    """Latents compete after they are multiplied by their rows' norms, which reconstructions are divided by."""
    norms = W.dec_FD.norm(dim=1)
    f = relu(x)[0] * norms
    if threshold is None:
        kept = f.topk(K, dim=1)
        f = torch.zeros_like(f).scatter(1, kept.indices, kept.values)
    else:
        f = f * (f > threshold)
    return f, (f / norms) @ W.dec_FD + W.b_D


def skipped(x: Tensor, answers: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return answers[0], answers[1] + x @ W.skip_DD.T


LINEAR = {"encoder.weight": W.enc_FD, "decoder.weight": W.dec_FD.T.contiguous()}
PLAIN = {**LINEAR, "encoder.bias": W.b_F}
OURS = {"W_enc": W.enc_FD.T.contiguous(), "W_dec": W.dec_FD, "b_enc": W.b_F, "b_dec": W.b_D}
BATCH = {"k": torch.tensor(K), "threshold": torch.tensor(THRESHOLD)}
THRESHOLDS = {"threshold": W.second_F.abs() + 0.5}


def dictionary(folder: Path, dict_class: str, tensors: dict[str, Tensor]) -> None:
    torch.save(tensors, folder / "ae.pt")
    config = {"trainer": {"dict_class": dict_class, "activation_dim": D, "k": K}, "buffer": {"d_submodule": D}}
    (folder / "config.json").write_text(json.dumps(config))


def sparsify(folder: Path, tensors: dict[str, Tensor], **config: Any) -> None:
    save_file(tensors, folder / "sae.safetensors")
    head = {"activation": "topk", "expansion_factor": 32, "num_latents": F, "k": K, "d_in": D, "multi_topk": False}
    (folder / "cfg.json").write_text(json.dumps({**head, "skip_connection": False, "transcode": False, **config}))


SPARSIFY = {"encoder.weight": W.enc_FD, "encoder.bias": W.b_F, "W_dec": W.dec_FD, "b_dec": W.b_D}


def saelens(folder: Path, architecture: str, tensors: dict[str, Tensor], **config: Any) -> None:
    save_file(tensors, folder / "sae_weights.safetensors")
    head = {"architecture": architecture, "d_in": D, "d_sae": F, "dtype": "float32", "apply_b_dec_to_input": True}
    head |= {"normalize_activations": "none", "metadata": {"sae_lens_version": "6.54.12", "model_name": "gpt2"}}
    (folder / "cfg.json").write_text(json.dumps({**head, **config}))


def legacy(folder: Path, tensors: dict[str, Tensor], **config: Any) -> None:
    save_file(tensors, folder / "sae_weights.safetensors")
    head = {"d_in": D, "d_sae": F, "hook_point": "blocks.3.hook_resid_post", "model_name": "gpt2", "dtype": "float32"}
    (folder / "cfg.json").write_text(json.dumps({**head, "normalize_activations": "none", **config}))


def checkpoint(folder: Path, scaler: dict[str, Any], **config: Any) -> None:
    saelens(folder, "standard", OURS, normalize_activations="expected_average_only_in", **config)
    (folder / "activation_scaler.json").write_text(json.dumps(scaler))


def scaled(x: Tensor) -> tuple[Tensor, Tensor]:
    f, y = relu(SCALE * x)
    return f, y / SCALE


GATED = {"W_enc": OURS["W_enc"], "W_dec": W.dec_FD, "b_dec": W.b_D, "b_gate": W.b_F, "b_mag": W.second_F}
NAMES = {"W_enc": "w_enc", "W_dec": "w_dec"}


def npz(folder: Path) -> None:
    np.savez(folder / "params.npz", **{name: t.numpy() for name, t in {**OURS, **THRESHOLDS}.items()})


def second_scope(folder: Path, **tensors: Tensor) -> None:
    small = {NAMES.get(name, name): tensor for name, tensor in {**OURS, **THRESHOLDS}.items()}
    save_file({**small, **tensors}, folder / "params.safetensors")


def openai(folder: Path, **more: Any) -> None:
    names = {"pre_bias": W.b_D, "latent_bias": W.b_F, "stats_last_nonzero": torch.zeros(F, dtype=torch.int64)}
    torch.save({**LINEAR, **names, "activation": "ReLU", **more}, folder / "6.pt")


def circuit_tracer(folder: Path, **tensors: Tensor) -> None:
    found = {"W_enc": W.enc_FD, "W_dec": W.dec_FD, "b_enc": W.b_F, "b_dec": W.b_D}
    save_file({**found, **tensors}, folder / "layer_3.safetensors")


FORMATS: dict[str, tuple[Callable[[Path], None], Answers]] = {
    "AutoEncoder": (lambda at: dictionary(at, "AutoEncoder", {**PLAIN, "bias": W.b_D}), relu),
    "AutoEncoderNew": (
        lambda at: dictionary(at, "AutoEncoderNew", {**PLAIN, "decoder.bias": W.b_D}),
        lambda x: relu(x, False),
    ),
    "GatedAutoEncoder": (
        lambda at: dictionary(
            at,
            "GatedAutoEncoder",
            {**LINEAR, "decoder_bias": W.b_D, "gate_bias": W.b_F, "mag_bias": W.second_F, "r_mag": W.third_F},
        ),
        gated,
    ),
    "AutoEncoderTopK": (lambda at: dictionary(at, "AutoEncoderTopK", {**PLAIN, "b_dec": W.b_D, **BATCH}), largest),
    "BatchTopKSAE": (
        lambda at: dictionary(at, "BatchTopKSAE", {**PLAIN, "b_dec": W.b_D, **BATCH}),
        lambda x: above(x, THRESHOLD),
    ),
    "JumpReluAutoEncoder": (
        lambda at: dictionary(at, "JumpReluAutoEncoder", {**OURS, **THRESHOLDS}),
        lambda x: above(x, THRESHOLDS["threshold"], False),
    ),
    "MatryoshkaBatchTopKSAE": (
        lambda at: dictionary(at, "MatryoshkaBatchTopKSAE", {**OURS, **BATCH, "group_sizes": torch.tensor([20, 40])}),
        lambda x: above(x, THRESHOLD),
    ),
    "sparsify": (lambda at: sparsify(at, SPARSIFY), largest),
    "sparsify transcoder": (
        lambda at: sparsify(at, {**SPARSIFY, "W_skip": W.skip_DD}, transcode=True, skip_connection=True),
        lambda x: skipped(x, largest(x, False)),
    ),
    "saelens standard": (lambda at: saelens(at, "standard", OURS), relu),
    "saelens gated": (lambda at: saelens(at, "gated", {**GATED, "r_mag": W.third_F}), gated),
    "saelens topk": (lambda at: saelens(at, "topk", OURS, k=K), largest),
    "saelens topk, rescaled": (
        lambda at: saelens(at, "topk", OURS, k=K, rescale_acts_by_decoder_norm=True),
        lambda x: rescaled(x, None),
    ),
    "saelens batchtopk checkpoint": (
        lambda at: saelens(
            at,
            "batchtopk",
            {**OURS, "topk_threshold": torch.tensor(THRESHOLD, dtype=torch.float64)},
            k=K,
            rescale_acts_by_decoder_norm=True,
        ),
        lambda x: rescaled(x, THRESHOLD),
    ),
    "saelens jumprelu checkpoint": (
        lambda at: saelens(at, "jumprelu", {**OURS, "log_threshold": THRESHOLDS["threshold"].log()}),
        lambda x: above(x, THRESHOLDS["threshold"]),
    ),
    "saelens checkpoint, scaled": (
        lambda at: checkpoint(at, {"scaling_factor": SCALE, "has_whitening": False}),
        scaled,
    ),
    "saelens skip transcoder": (
        lambda at: saelens(at, "skip_transcoder", {**OURS, "W_skip": W.skip_DD}, d_out=D, apply_b_dec_to_input=False),
        lambda x: skipped(x, relu(x, False)),
    ),
    "saelens legacy": (lambda at: legacy(at, {**OURS, "scaling_factor": torch.ones(F)}), relu),
    "saelens legacy, finetuned": (
        lambda at: legacy(
            at,
            {**OURS, "W_dec": W.dec_FD / THRESHOLDS["threshold"][:, None], "scaling_factor": THRESHOLDS["threshold"]},
            finetuning_scaling_factor=True,
        ),
        relu,
    ),
    "saelens legacy topk": (
        lambda at: legacy(at, OURS, activation_fn_str="topk", activation_fn_kwargs={"k": K}),
        largest,
    ),
    "gemma scope": (npz, lambda x: above(x, THRESHOLDS["threshold"], False)),
    "gemma scope 2": (second_scope, lambda x: above(x, THRESHOLDS["threshold"], False)),
    "gemma scope 2 with a skip": (
        lambda at: second_scope(at, affine_skip_connection=W.skip_DD.T.contiguous()),
        lambda x: skipped(x, above(x, THRESHOLDS["threshold"], False)),
    ),
    "openai": (openai, relu),
    "circuit-tracer": (
        lambda at: circuit_tracer(at, **{"activation_function.threshold": THRESHOLDS["threshold"]}, W_skip=W.skip_DD),
        lambda x: skipped(x, above(x, THRESHOLDS["threshold"], False)),
    ),
    "circuit-tracer of ReLU": (circuit_tracer, lambda x: relu(x, False)),
}
"""How a folder of each is made, and what its own program gives."""
