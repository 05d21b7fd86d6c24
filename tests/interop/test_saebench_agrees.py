"""SAEBench's own core evaluation of one member finds what our result file for it says."""

import argparse
import inspect
import json
import subprocess
import tarfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sae_sweep as ss
from sae_sweep import cli

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-saebench" / "bin" / "python"
CONTEXT, ROWS, BATCH = 32, 64, 16
ABLATED = {"kl_div_with_ablation", "kl_div_score", "ce_loss_with_ablation", "ce_loss_score"}
"""It ablates BOS too, which changes what zeros cost."""
COUNTED = {"total_tokens_eval_reconstruction", "total_tokens_eval_sparsity_variance"}

pytestmark = pytest.mark.evidence


def run(*arguments: str | Path) -> None:
    if not PYTHON.exists():
        pytest.fail("run `make .venv-saebench`", pytrace=False)
    command = [PYTHON, ROOT / "scripts" / "run_saebench.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def numbers(file: Path) -> dict[str, Any]:
    groups = json.loads(file.read_text())["eval_result_metrics"]
    return {name: value for values in groups.values() for name, value in values.items()}


def test_every_number(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(inspect.getsource(argparse))
    sweep = ss.train(
        *("sae=topk", "sae.l0=16", "sae.width=256", "site.layer=2", "tracking=none", "model.device=cpu"),
        *("training.tokens=2e4", "training.batch_size=512", "training.lr=6e-3", "data=text", f"data.path={text}"),
        *(f"data.context={CONTEXT}", "data.block_rows=64", f"data.rows_per_forward={BATCH}", "evaluation.tokens=1e3"),
        "data.max_norm_ratio=null",
        name="mine",
        output_dir=tmp_path,
    )
    sae = next(iter(sweep.values()))
    label, model = sae.home.folder.name, sae.model()
    ids = model.tokenizer(inspect.getsource(tarfile))["input_ids"][: ROWS * (CONTEXT - 1)]
    tokens = np.pad(np.array(ids).reshape(ROWS, -1), ((0, 0), (1, 0)), constant_values=model.running.bos_id)
    np.savez(tmp_path / "rows.npz", tokens=tokens)
    data = [
        "data=tokens",
        f"data.path={tmp_path / 'rows.npz'}",
        f"--tokens={ROWS * CONTEXT}",
        f"data.context={CONTEXT}",
    ]
    assert cli.main(["eval", str(sweep.folder), "--format=saebench", *data]) == 0
    (ours,) = (sweep.folder / "eval").glob("*-saebench/*.json")
    run(ours)
    exported, theirs = tmp_path / "exported", tmp_path / "theirs.json"
    assert cli.main(["export", str(sweep.folder / label), "--format=saebench", f"--out={exported}"]) == 0
    run(exported, str(files("sae_sweep") / "assets" / "demo_lm"), tmp_path / "rows.npz", str(BATCH), theirs)
    found, own = numbers(theirs), numbers(ours)
    assert set(found) == set(own)
    for name in sorted(set(found) - ABLATED):
        print(f"{name:<40} {found[name]:.8g} {own[name]:.8g}")
        # its KL is over the last token of each row too
        assert own[name] == pytest.approx(found[name], rel=0.02 if name == "kl_div_with_sae" else 1e-4), name
    assert {name: own[name] for name in COUNTED} == dict.fromkeys(COUNTED, ROWS * CONTEXT)
