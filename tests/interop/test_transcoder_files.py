"""Transcoders on disk: SAELens's names and shapes, and the same answers once read back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sae_sweep.interop import load_sae, saelens
from tests.interop.trained import CONFIGS, WIDTH, D, raw_activations, transcoder

SAELENS = {
    **dict.fromkeys(("bricken", "april", "p_anneal"), "transcoder"),
    **dict.fromkeys(("gated", "gated_decoder_norm", "batchtopk", "matryoshka"), "jumprelu_transcoder"),
    **dict.fromkeys(("jumprelu", "jumprelu_anthropic"), "jumprelu_transcoder"),
    "topk": "topk_transcoder",
}
D_OUT = 18


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_is_what_is_read(name: str, skip: bool, tmp_path: Path) -> None:
    sae = transcoder(name, skip, D_OUT)
    metadata = {"hook_name": "blocks.3.mlp.hook_in", "hook_name_out": "blocks.3.hook_mlp_out"}
    saelens.write(tmp_path, sae, metadata, torch.full((WIDTH,), 0.1))
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    expected = SAELENS[name].replace("transcoder", "skip_transcoder") if skip else SAELENS[name]
    assert cfg["architecture"] == expected
    assert (cfg["d_in"], cfg["d_out"], cfg["d_sae"], cfg["apply_b_dec_to_input"]) == (D, D_OUT, WIDTH, False)
    assert cfg["metadata"].items() >= metadata.items()
    shapes = {name: tuple(t.shape) for name, t in load_file(tmp_path / "sae_weights.safetensors").items()}
    common = {"W_enc": (D, WIDTH), "W_dec": (WIDTH, D_OUT), "b_dec": (D_OUT,), "b_enc": (WIDTH,)}
    assert shapes.items() >= common.items()
    assert shapes.get("W_skip") == ((D_OUT, D) if skip else None)
    again, x_BD = load_sae(tmp_path), raw_activations(50, 2)
    assert (again.form, again.transcodes) == (sae.form, True)
    f_BF = sae.encode(x_BD)
    assert torch.equal(again.encode(x_BD), f_BF)
    assert torch.equal(again.decode(f_BF, None, x_BD), sae.decode(f_BF, None, x_BD))


def test_a_skip_of_the_wrong_shape_is_refused(tmp_path: Path) -> None:
    sae = transcoder("bricken", True, D_OUT)
    turned = replace(sae, tensors=sae.tensors | {"W_skip": sae.tensors["W_skip"].T})
    saelens.write(tmp_path, turned, {}, torch.full((WIDTH,), 0.1))
    with pytest.raises(ValueError, match=r"W_skip is \(24, 18\), not \(18, 24\)"):
        load_sae(tmp_path)
