"""A believable sweep's folder, written as the program would: four architectures, four sparsities each."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.config.files import config_of

# How many latents a member fires, and how its fidelity grows with that.
GRIDS: dict[str, dict[str, Any]] = {
    "standard": {"knob": "l1", "values": [4e-3, 2e-3, 1e-3, 5e-4], "loss": 0.62, "gamma": 0.83, "dead": 0.21},
    "standard_april": {"knob": "l1", "values": [20.0, 10.0, 5.0, 2.5], "loss": 0.5, "gamma": 0.87, "dead": 0.04},
    "gated": {"knob": "l1", "values": [1.2e-3, 6e-4, 3e-4, 1.5e-4], "loss": 0.38, "gamma": 0.985, "dead": 0.1},
    "topk": {"knob": "k", "values": [12, 24, 48, 96], "loss": 0.33, "gamma": 0.995, "dead": 0.02},
}
CE_CLEAN, CE_ZERO, CE_MEAN = 3.412, 11.237, 8.954


@cache
def sae_entries(name: str) -> dict[str, Any]:
    """The entries of configs/sae/<name>.yaml."""
    return asdict(config_of([f"sae={name}", "sae.expansion=16"]).sae)


def member_config(architecture: str, knob: str, value: float, layer: int, seed: int) -> dict[str, Any]:
    """A resolved config without its runtime keys, as sweep.json holds it."""
    data: dict[str, Any] = {
        "kind": "hub",
        "path": "corpus",
        "name": None,
        "split": "train",
        "field": "text",
        "heldout_path": None,
    }
    data |= {"heldout_split": None, "context": 128, "bos": "auto", "seed": 0}
    return {
        "seed": seed,
        "model": {"path": "gpt2", "revision": None, "dtype": "float32", "d_model": 768},
        "site": {"kind": "resid_post", "layer": layer, "hook": None},
        "data": data,
        "sae": sae_entries(architecture) | {"l0": None, knob: value},
        "training": {"tokens": 2e8, "batch_size": 4096, "lr": 3e-4},
        "evaluation": {"tokens": 1e6, "every": None, "positions": "counted"},
    }


def member_metrics(facts: dict[str, Any], l0: float, noise: random.Random) -> dict[str, Any]:
    """metrics.json of a member whose fidelity follows its L0."""
    delta = facts["loss"] * (12 / l0) ** 0.7 * noise.uniform(0.96, 1.04)
    fvu = 0.9 * facts["loss"] * (12 / l0) ** 0.45
    return {
        "l0": l0,
        "l1": 2.4 * l0,
        "mse": 900 * fvu,
        "fvu": fvu,
        "explained_variance": 1 - fvu,
        "cosine": math.sqrt(1 - fvu),
        "gamma": min(facts["gamma"] + 0.015 * math.log2(l0 / 12), 1.004),
        "ce_clean": CE_CLEAN,
        "ce_sae": CE_CLEAN + delta,
        "ce_zero": CE_ZERO,
        "ce_mean": CE_MEAN,
        "ce_delta": delta,
        "ce_recovered": 1 - delta / (CE_ZERO - CE_CLEAN),
        "ce_recovered_mean": 1 - delta / (CE_MEAN - CE_CLEAN),
        "kl": 0.93 * delta,
        "kl_zero": 8.1,
        "later_fvu": None,
        "dead_fraction": facts["dead"],
        "dead_window_tokens": 10_000_000,
        "alive": 0.99 - facts["dead"],
        "density_over_1pct": 0.004 * l0 / 12,
        "density_over_10pct": 0.0004 * l0 / 12,
        "mmcs_truth": None,
        "mmcs_truth_frequent": None,
        "mmcs_latents": None,
        "l0_se": 0.011 * l0,
        "ce_recovered_se": 0.0012,
        "coefficient_final": None if facts["knob"] == "k" else 1e-3,
        "threshold_mode": None,
        "l0_untrimmed": None,
        "tokens_trained": 200_000_000,
        "tokens_evaluated": 1_003_520,
        "version": 1,
    }


def curve_lines(l0: float, loss: float, lines: int, noise: random.Random) -> str:
    """metrics.jsonl: L0 falls from a tenth of the latents, the loss towards its end."""
    rows = []
    for index in range(lines):
        share = index / max(lines - 1, 1)
        fall = math.exp(-9 * share)
        row = {
            "step": index * 100,
            "tokens": round(2e8 * share),
            "loss": loss * (1 + 6 * fall) * noise.uniform(0.98, 1.02),
        }
        rows.append(row | {"l0": l0 * (1 + 60 * fall) * noise.uniform(0.98, 1.02), "lr": 3e-4})
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_sweep(folder: Path, layers: tuple[int, ...] = (6,), lines: int = 600) -> Path:
    """16 finished members per layer, one failed and one running."""
    noise = random.Random(0)
    members: dict[str, Any] = {}
    for layer in layers:
        for architecture, facts in GRIDS.items():
            for index, value in enumerate(facts["values"]):
                label = f"{architecture}-{facts['knob']}_{value:g}-x16" + (f"-L{layer}" if len(layers) > 1 else "")
                l0 = 12.0 * 2**index * (1 if architecture == "topk" else noise.uniform(0.8, 1.3))
                config = member_config(architecture, facts["knob"], value, layer, 0)
                members[label] = {"identity": f"{len(members):016x}", "state": "finished", "config": config}
                (folder / label).mkdir(parents=True)
                metrics = member_metrics(facts, l0, noise)
                (folder / label / "metrics.json").write_text(json.dumps(metrics))
                (folder / label / "metrics.jsonl").write_text(curve_lines(l0, 900 * metrics["fvu"], lines, noise))
    failed = member_config("gated", "l1", 0.05, layers[0], 0)
    members["gated-l1_0.05-x16"] = {
        "identity": "f" * 16,
        "state": "failed",
        "reason": "loss is not finite at step 1200 (<nan>)",
        "config": failed,
    }
    members["topk-k_192-x16"] = {"identity": "e" * 16, "state": "running", "config": failed}
    (folder / "sweep.json").write_text(json.dumps({"version": 1, "name": "gated_vs_topk", "members": members}))
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "gated_vs_topk", lines=40)


@pytest.fixture
def make_sweep(tmp_path: Path) -> Callable[..., Path]:
    return lambda **options: write_sweep(tmp_path / "made", **options)
