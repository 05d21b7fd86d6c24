"""SAEs that other libraries trained and judged: imported, they reconstruct the same, and are worth the same here."""

import argparse
import decimal
import inspect
import json
import subprocess
import tarfile
import typing
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import sae_sweep as ss
from sae_sweep import cli

ROOT = Path(__file__).resolve().parents[2]
CONTEXT, HELD_OUT = 32, 64
HOOK = "blocks.2.hook_resid_post"
PEERS = {"dictionary_learning": ".venv-dictionary", "sparsify": ".venv-sparsify", "sae-lens": ".venv-interop"}

pytestmark = pytest.mark.evidence


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of the demo model's tokens, each with BOS first."""
    model = ss.Model(_demo())
    ids = model.tokenizer("\n".join(map(inspect.getsource, (tarfile, typing, decimal, argparse))))["input_ids"]
    body = np.array(ids[: len(ids) // (CONTEXT - 1) * (CONTEXT - 1)]).reshape(-1, CONTEXT - 1)
    tokens = np.concatenate([np.full((len(body), 1), model.running.bos_id), body], axis=1)
    file = tmp_path_factory.mktemp("rows") / "rows.npz"
    np.savez(file, tokens=tokens, heldout=HELD_OUT)
    return file


def _demo():
    from sae_sweep.config.files import config_of
    from sae_sweep.model.load import load_model

    return load_model(config_of({"model": "demo", "model.device": "cpu"}).model)


@pytest.mark.parametrize("peer", PEERS)
def test_reconstructions_and_metrics(peer: str, rows: Path, tmp_path: Path) -> None:
    python = ROOT / PEERS[peer] / "bin" / "python"
    if not python.exists():
        pytest.fail(f"{PEERS[peer]} is missing; run `make {PEERS[peer]}`", pytrace=False)
    out = tmp_path / "theirs"
    out.mkdir()
    script, model = ROOT / "scripts" / "train_elsewhere.py", files("sae_sweep") / "assets" / "demo_lm"
    done = subprocess.run([python, script, peer, str(model), rows, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    theirs = json.loads((out / "answers.json").read_text())
    saes = {}
    for name in theirs:
        place = ["--model", "demo", "--site", HOOK, *(["--output", HOOK] if name == "skip" else [])]
        assert cli.main(["import", str(out / name), *place, "--out", str(tmp_path / name)]) == 0
        sae, check = ss.load(tmp_path / name), load_file(out / f"{name}.safetensors")
        x_hat_BD, scale = sae(check["x"]), float(check["reconstruction"].abs().max())
        torch.testing.assert_close(x_hat_BD, check["reconstruction"], rtol=1e-5, atol=1e-5 * scale, msg=name)
        saes[name] = sae
    data = ["data=tokens", f"data.path={rows}", f"data.context={CONTEXT}", "data.block_rows=64"]
    data += [f"evaluation.tokens={CONTEXT * HELD_OUT}", "evaluation.positions=all", "data.max_norm_ratio=null"]
    ours = ss.evaluate(saes, model=ss.Model(_demo()), data=data)
    for name, told in theirs.items():
        own = ours.loc[name]
        assert own["tokens_evaluated"] == told["tokens"], name
        for key in ("l0", "mse", "ce_clean", "ce_sae"):
            assert own[key] == pytest.approx(told[key], rel=2e-5), (name, key)
        assert 1 < told["l0"] < 460, name
        print(f"{peer:<20} {name:<22} {told}")
