"""SAEs of programs whose files leave something unsaid, with what is said instead, and their answers in their own words.

Beside those of `foreign.py`: the weights are the same.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sae_sweep.interop import Given
from tests.interop.foreign import OURS, THRESHOLD, THRESHOLDS, Answers, D, F, K, W, above, gated, largest, relu

VOCABULARY = 11
TABLE = torch.randn(VOCABULARY, D, generator=torch.Generator().manual_seed(9))
UNBIASED = {**OURS, "b_enc": torch.zeros(F)}


def unbiased(x: Tensor) -> Tensor:
    return ((x - W.b_D) @ W.enc_FD.T).clamp(min=0)


def without_bias(x: Tensor, kept: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """What Bussmann's TopK kinds make of activations: their encoder has no bias."""
    f = kept(unbiased(x))
    return f, f @ W.dec_FD + W.b_D


def k_largest(f: Tensor) -> Tensor:
    values, ids = f.topk(K, dim=1)
    return torch.zeros_like(f).scatter(1, ids, values)


def cut(f: Tensor) -> Tensor:
    return torch.where(f > THRESHOLD, f, 0.0)


def bussmann(at: Path, sae_type: str, tensors: dict[str, Tensor], **config: Any) -> None:
    torch.save(tensors, at / "sae.pt")
    said = {"sae_type": sae_type, "top_k": K, "dtype": "torch.float32", "input_unit_norm": "False", "seq_len": "128"}
    said |= {"model_name": "gpt2-small", "hook_point": "blocks.8.hook_resid_pre", "act_size": str(D)}
    (at / "config.json").write_text(json.dumps({**said, **config}))


def saev(at: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    with (at / "sae.pt").open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        torch.save(tensors, file)


def activation(name: str, **params: int) -> dict[str, Any]:
    cfg = {"d_model": D, "d_sae": F, "activation": {"cls": name, "params": params}}
    return {"schema": 4, "cfg": cfg, "commit": "none", "lib": "0.2.0"}


TURNED = {"W_enc": W.enc_FD, "W_dec": W.dec_FD.T.contiguous(), "b_enc": W.b_F, "b_dec": W.b_D}
GATES = {"r_mag": W.third_F, "b_gate": W.b_F, "b_mag": W.second_F, "b_dec": W.b_D}


def tokenized(at: Path, tensors: dict[str, Tensor]) -> None:
    torch.save({"lookup.W_lookup.weight": TABLE, **tensors}, at / "topk.pt")


def plain(at: Path, tensors: dict[str, Tensor], suffix: str = ".safetensors") -> None:
    file = at / f"mine{suffix}"
    if suffix == ".safetensors":
        save_file(tensors, file)
    elif suffix == ".npz":
        np.savez(file, **{name: tensor.numpy() for name, tensor in tensors.items()})
    else:
        torch.save(tensors, file)


LINEAR = {"encoder.weight": W.enc_FD, "encoder.bias": W.b_F, "decoder.weight": W.dec_FD.T.contiguous(), "bias": W.b_D}
SUBTRACTS, RAW = Given(subtract_b_dec=True), Given(subtract_b_dec=False)

FORMATS: dict[str, tuple[Callable[[Path], None], Answers, Given]] = {
    "vanilla of Bussmann": (lambda at: bussmann(at, "vanilla", OURS), relu, Given()),
    "topk of Bussmann": (
        lambda at: bussmann(at, "topk", UNBIASED),
        lambda x: without_bias(x, k_largest),
        Given(),
    ),
    "topk of Bussmann, with a bias": (
        lambda at: bussmann(at, "topk", OURS, use_encoder_bias="True", tied_weights="False"),
        largest,
        Given(),
    ),
    "batchtopk of Bussmann": (
        lambda at: bussmann(at, "batchtopk", UNBIASED),
        lambda x: without_bias(x, cut),
        Given(threshold=THRESHOLD),
    ),
    "jumprelu of Bussmann": (
        lambda at: bussmann(at, "jumprelu", {**OURS, "jumprelu.log_threshold": THRESHOLDS["threshold"].log()}),
        lambda x: above(x, THRESHOLDS["threshold"], False),
        Given(),
    ),
    "matryoshka of Bussmann": (
        lambda at: bussmann(
            at, "global-matryoshka-topk", {**UNBIASED, "threshold": torch.tensor(THRESHOLD)}, group_sizes="[20, 40]"
        ),
        lambda x: without_bias(x, cut),
        Given(),
    ),
    "saev": (lambda at: saev(at, OURS, activation("Relu")), lambda x: relu(x, False), Given()),
    "saev topk": (lambda at: saev(at, OURS, activation("TopK", top_k=K)), lambda x: largest(x, False), Given()),
    "saev batchtopk": (
        lambda at: saev(
            at, {**OURS, "activation.threshold": torch.tensor(THRESHOLD)}, activation("BatchTopK", top_k=K)
        ),
        lambda x: above(x, THRESHOLD, False),
        Given(),
    ),
    "saev batchtopk, before thresholds": (
        lambda at: saev(at, OURS, {"schema": 1, "cls": "BatchTopK", "cfg": {"d_vit": D, "top_k": K}}),
        lambda x: largest(x, False),
        Given(),
    ),
    "saev before schemas": (
        lambda at: saev(at, OURS, {"d_vit": D, "exp_factor": 2, "ghost_grads": False}),
        lambda x: relu(x, False),
        Given(),
    ),
    "tokenized": (lambda at: tokenized(at, TURNED), largest, Given(k=K)),
    "tokenized vanilla": (lambda at: tokenized(at, TURNED), relu, Given(activation="relu")),
    "tokenized gated": (
        lambda at: tokenized(at, {"W_gate": W.enc_FD, "W_dec": TURNED["W_dec"], **GATES}),
        gated,
        Given(),
    ),
    "tensors": (lambda at: plain(at, OURS), relu, Given(activation="relu", subtract_b_dec=True)),
    "tensors, raw inputs": (
        lambda at: plain(at, OURS),
        lambda x: relu(x, False),
        Given(activation="relu", subtract_b_dec=False),
    ),
    "tensors, turned": (lambda at: plain(at, TURNED, ".npz"), largest, Given(k=K, subtract_b_dec=True)),
    "tensors, linear": (lambda at: plain(at, LINEAR, ".pt"), largest, Given(k=K, subtract_b_dec=True)),
    "tensors, half turned": (
        lambda at: plain(at, {**OURS, "W_dec": TURNED["W_dec"]}),
        relu,
        Given(activation="relu", subtract_b_dec=True),
    ),
    "tensors, thresholds": (
        lambda at: plain(at, {**OURS, "log_threshold": THRESHOLDS["threshold"].log()}),
        lambda x: above(x, THRESHOLDS["threshold"]),
        SUBTRACTS,
    ),
    "tensors, one threshold": (
        lambda at: plain(at, {**OURS, "threshold": torch.tensor(THRESHOLD)}),
        lambda x: above(x, THRESHOLD, False),
        RAW,
    ),
    "tensors, gated": (
        lambda at: plain(at, {"W_enc": OURS["W_enc"], "W_dec": W.dec_FD, **GATES}),
        gated,
        SUBTRACTS,
    ),
}
"""How a folder of each is made, what its own program gives, and what has to be said."""
