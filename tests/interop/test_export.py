"""An exported SAE, read again, gives the codes and reconstructions of the member, in each format that has such."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sae_sweep.errors import ConfigError
from sae_sweep.folder.files import write_json_atomic
from sae_sweep.interop import load_sae, saelens
from sae_sweep.interop.command.export import export
from tests.interop.trained import CONFIGS, WIDTH, D, raw_activations, trained_member, transcoder

METADATA = {"hook_name": "blocks.3.hook_resid_post", "model_name": "org/small", "context_size": 64}
METRICS = {"l0": 7.5, "kl": 0.25, "kl_zero": 2.0, "ce_recovered": 0.9, "version": 1, "threshold_mode": None}
METRICS |= {"cosine": 0.9, "mse": 3.0, "explained_variance": 0.8, "gamma": 0.97}
TRANSCODED = METADATA | {"hook_name": "blocks.3.mlp.hook_in", "hook_name_out": "blocks.3.hook_mlp_out"}


@pytest.fixture
def member(name: str, tmp_path: Path) -> Path:
    folder = tmp_path / "member"
    folder.mkdir()
    saelens.write(folder, trained_member(name, 0).folded(), METADATA, torch.full((WIDTH,), 0.25))
    write_json_atomic(folder / "metrics.json", METRICS)
    return folder


def exported(member: Path, named: str, *more: str) -> Path:
    out = member.parent / "out" / named
    export([str(member), "--format", named, f"--out={out}", *more])
    return out


def same(member: Path, out: Path, tolerance: float = 1e-5) -> None:
    own, again, x_BD = load_sae(member), load_sae(out), raw_activations(300, 2)
    f_BF = own.encode(x_BD)
    torch.testing.assert_close(again.encode(x_BD), f_BF, rtol=tolerance, atol=tolerance * float(f_BF.max()))
    x_hat_BD = own.decode(f_BF, None, x_BD)
    scale = tolerance * float(x_hat_BD.abs().max())
    torch.testing.assert_close(again.decode(again.encode(x_BD), None, x_BD), x_hat_BD, rtol=tolerance, atol=scale)


@pytest.mark.parametrize("named", ["saelens", "dictionary_learning", "saebench", "neuronpedia"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_kind(name: str, named: str, member: Path) -> None:
    same(member, exported(member, named))


@pytest.mark.parametrize("name", ["topk"])
def test_sparsify(member: Path) -> None:
    out = exported(member, "sparsify")
    same(member, out)
    assert {file.name for file in out.iterdir()} == {"cfg.json", "sae.safetensors"}
    config = json.loads((out / "cfg.json").read_text())
    assert (config["num_latents"], config["d_in"], config["k"], config["transcode"]) == (WIDTH, D, 7, False)


@pytest.mark.parametrize("name", ["april", "batchtopk", "gated"])
@pytest.mark.parametrize("skip", [False, True])
def test_transcoders(name: str, skip: bool, tmp_path: Path) -> None:
    """A gated one is saved as the JumpReLU that it is."""
    folder = tmp_path / "member"
    folder.mkdir()
    saelens.write(folder, transcoder(name, skip, D), TRANSCODED, torch.zeros(WIDTH))
    out = exported(folder, "circuit-tracer")
    same(folder, out)
    config: dict[str, Any] = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["model_name"], config["model_kind"]) == ("org/small", "transcoder_set")
    assert (config["feature_input_hook"], config["feature_output_hook"]) == ("mlp.hook_in", "hook_mlp_out")
    assert load_file(out / "layer_3.safetensors")["W_enc"].shape == (WIDTH, D)


def test_a_topk_transcoder_for_sparsify(tmp_path: Path) -> None:
    (tmp_path / "member").mkdir()
    saelens.write(tmp_path / "member", transcoder("topk", True, D), TRANSCODED, torch.zeros(WIDTH))
    same(tmp_path / "member", exported(tmp_path / "member", "sparsify"))


@pytest.mark.parametrize("name", ["jumprelu"])
def test_half_the_bytes(member: Path) -> None:
    out = exported(member, "saelens", "--dtype", "bfloat16")
    tensors = load_file(out / "sae_weights.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert json.loads((out / "cfg.json").read_text())["dtype"] == "bfloat16"
    assert torch.equal(load_sae(out).tensors["W_dec"], load_sae(member).tensors["W_dec"].bfloat16().float())


@pytest.mark.parametrize("name", ["april"])
def test_what_is_said_beside_the_weights(member: Path) -> None:
    card = json.loads((exported(member, "neuronpedia") / "cfg.json").read_text())["metadata"]
    assert card["neuronpedia_id"] == f"small/3-sae-sweep-resid_post-{WIDTH}"
    core = json.loads((exported(member, "saebench") / "sae_bench_core.json").read_text())["eval_result_metrics"]
    assert core["model_behavior_preservation"] == {
        "kl_div_with_sae": 0.25,
        "kl_div_with_ablation": 2.0,
        "kl_div_score": 0.875,
    }
    assert core["sparsity"] == {"l0": 7.5}
    assert core["reconstruction_quality"] == {"cossim": 0.9}, "squared error, say, is another number there"
    assert "shrinkage" not in core
    unit = torch.nn.functional.normalize(load_sae(member).tensors["W_dec"], dim=1)
    nearest = (unit @ unit.T - 2 * torch.eye(WIDTH)).amax(1).mean()
    assert core["misc_metrics"]["average_max_decoder_cosine_sim"] == pytest.approx(float(nearest), abs=1e-6)
    frequency = 10 ** load_file(exported(member, "saelens") / "sparsity.safetensors")["sparsity"].double()
    torch.testing.assert_close(frequency, torch.full((WIDTH,), 0.25).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["jumprelu"])
def test_a_damaged_file_beside_the_weights_is_one_line(member: Path) -> None:
    (member / "sparsity.safetensors").write_bytes(b"half")
    with pytest.raises(ConfigError, match=r"^export: .*sparsity\.safetensors is damaged: "):
        exported(member, "saelens")
    assert not (member.parent / "out" / "saelens").exists()


@pytest.mark.parametrize("name", ["gated"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "pickle"], "--format=pickle is not one of circuit_tracer, dictionary_learning"),
        (["--format", "sparsify"], "sparsify has TopK alone"),
        (["--format", "circuit-tracer"], "circuit-tracer has transcoders"),
        (["--format", "saelens", "--dtype", "int8"], "--dtype=int8 is not one of float32, bfloat16, float16"),
        (["--format", "saelens", "--colour", "red"], "--colour is not one of"),
        (["--format"], "--format needs a value"),
        ([], "give --format once"),
    ],
)
def test_refusals_write_nothing(arguments: list[str], said: str, member: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        export([str(member), *arguments, "--out", str(member.parent / "out")])
    assert not (member.parent / "out").exists()


@pytest.mark.parametrize("name", ["gated"])
def test_a_folder_with_files_is_left_alone(member: Path) -> None:
    with pytest.raises(ConfigError, match="is there already"):
        export([str(member), "--format", "saelens", "--out", str(member)])
    with pytest.raises(ConfigError, match="does not exist"):
        export([str(member / "no"), "--format", "saelens", "--out", str(member.parent / "out")])
