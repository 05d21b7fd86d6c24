"""Other libraries read what is exported for them, and reconstruct the same."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_sweep.interop import load_sae, saelens
from sae_sweep.interop.command.export import export
from sae_sweep.saes.inference import InferenceSae
from tests.interop.trained import CONFIGS, LAYERS, D, cross_layer, raw_activations, trained_member, transcoder

ROOT = Path(__file__).resolve().parents[2]
HOOKS: dict[str, object] = {
    "hook_name": "blocks.3.mlp.hook_in",
    "hook_name_out": "blocks.3.hook_mlp_out",
    "model_name": "org/small",
    "hook_names": [f"blocks.{layer}.mlp.hook_in" for layer in range(LAYERS)],
    "hook_names_out": [f"blocks.{layer}.hook_mlp_out" for layer in range(LAYERS)],
}
TRANSCODED = ("april", "gated", "batchtopk", "jumprelu")
SAES: dict[str, tuple[str, dict[str, Callable[[], InferenceSae]]]] = {
    "dictionary_learning": (
        ".venv-dictionary",
        {name: lambda name=name: trained_member(name, 0).folded() for name in CONFIGS},
    ),
    "sparsify": (
        ".venv-sparsify",
        {
            "topk": lambda: trained_member("topk", 0).folded(),
            "transcoder": lambda: transcoder("topk", False, D),
            "skip": lambda: transcoder("topk", True, D),
        },
    ),
    "circuit-tracer": (
        ".venv-circuit",
        {f"{name}-{skip}": lambda n=name, s=skip: transcoder(n, s, D) for name in TRANSCODED for skip in (True, False)}
        | {f"{name}-layers": lambda n=name: cross_layer(n) for name in TRANSCODED},
    ),
}
"""The environment of each, and what is exported for it."""

pytestmark = pytest.mark.evidence


def check(peer: str, folder: Path) -> subprocess.CompletedProcess[str]:
    python = ROOT / SAES[peer][0] / "bin" / "python"
    if not python.exists():
        pytest.fail(f"{SAES[peer][0]} is missing; run `make {SAES[peer][0]}`", pytrace=False)
    command = [python, ROOT / "scripts" / "check_exported.py", peer, folder]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("peer", SAES)
def test_reconstructions_are_ours(peer: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, made in SAES[peer][1].items():
        member = tmp_path / name
        member.mkdir()
        saelens.write(member, made(), HOOKS, None)
        sae = load_sae(member)
        x_BD = torch.cat([raw_activations(300, seed) for seed in range(1, 1 + sae.places)], dim=1)
        export([str(member), "--format", peer, f"--out={out / name}"])
        reconstruction_BD = sae.decode(sae.encode(x_BD), None, x_BD)
        save_file({"x": x_BD, "reconstruction": reconstruction_BD}, out / f"{name}.safetensors")
    result = check(peer, out)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(" agrees") == len(SAES[peer][1])
    print(result.stdout)
    wrong = load_file(out / f"{name}.safetensors")
    save_file({**wrong, "reconstruction": 1.0001 * wrong["reconstruction"]}, out / f"{name}.safetensors")
    result = check(peer, out)
    assert result.returncode == 1
    assert result.stdout.count(" DISAGREES") == 1


def test_an_empty_folder_is_no_success(tmp_path: Path) -> None:
    assert check("sparsify", tmp_path).returncode == 2


def test_a_difference_that_is_no_number(tmp_path: Path) -> None:
    """Must not pass."""
    (tmp_path / "member").mkdir()
    saelens.write(tmp_path / "member", trained_member("topk", 0).folded(), HOOKS, None)
    out = tmp_path / "out"
    export([str(tmp_path / "member"), "--format", "sparsify", f"--out={out / 'topk'}"])
    x_BD = raw_activations(3, 1)
    save_file({"x": x_BD, "reconstruction": torch.full_like(x_BD, torch.nan)}, out / "topk.safetensors")
    assert check("sparsify", out).returncode == 1
