"""Folders of sweeps of any size, as the program would leave them: what the page has to bear."""

import json
import random
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from tests.reporting.conftest import GRIDS, curve_lines, member_config, member_metrics

SIZES: dict[int, dict[str, tuple[Any, ...]]] = {
    16: {},
    60: {"architectures": ("gated", "standard", "standard_april", "topk", "batchtopk"), "seeds": (0, 1, 2)},
    300: {
        "layers": (2, 4, 6, 8, 10),
        "architectures": ("gated", "standard", "standard_april", "topk", "batchtopk"),
        "widths": (8, 32),
        "lrs": (3e-4, 1e-3),
        "values": (0, 2, 3),
    },
}
"""Axes by number of members; those not named have one value, or the four architectures at four sparsities."""
FACTS = GRIDS | {"batchtopk": {"knob": "k", "values": [12, 24, 48, 96], "loss": 0.31, "gamma": 0.997, "dead": 0.01}}


def write_many(
    folder: Path,
    layers: tuple[int, ...] = (6,),
    architectures: tuple[str, ...] = tuple(GRIDS),
    widths: tuple[int, ...] = (16,),
    lrs: tuple[float, ...] = (3e-4,),
    seeds: tuple[int, ...] = (0,),
    values: tuple[int, ...] = (0, 1, 2, 3),
    lines: int = 120,
    latents: int = 20,
) -> Path:
    """The product of the axes; `values` are indices into each architecture's sparsities, `latents` are looked at."""
    noise, members = random.Random(0), dict[str, Any]()
    for layer, architecture, width, lr, seed, index in product(layers, architectures, widths, lrs, seeds, values):
        facts = FACTS[architecture]
        value = facts["values"][index]
        config = member_config(architecture, facts["knob"], value, layer, seed)
        config["sae"]["expansion"] = width
        config["training"]["lr"] = lr
        label = f"{architecture}-{facts['knob']}_{value:g}-x{width}-L{layer}-lr_{lr:g}-s{seed}"
        members[label] = {"identity": f"{len(members):016x}", "state": "finished", "config": config}
        l0 = 12.0 * 2**index * (1 if facts["knob"] == "k" else noise.uniform(0.8, 1.3))
        facts = facts | {"loss": facts["loss"] * (16 / width) ** 0.15 * (1 + 0.02 * layer) * (1 + 0.2 * (lr > 5e-4))}
        write_member(folder / label, config, member_metrics(facts, l0, noise), lines, latents, noise)
    write_analyses(folder / "analyses", list(members))
    (folder / "sweep.json").write_text(json.dumps({"version": 1, "name": folder.name, "members": members}))
    return folder


def write_analyses(folder: Path, members: list[str]) -> None:
    """Results with a chart, a control and errors; with a map; of two seeds, and of pairs; and one of another program,
    which is passed over."""
    few = members[:6]
    curves = [Series("SAEs", [1, 10, 100], [0.5, 0.7, 0.9], [0.01, None, 0.02]), Series("random", [1, 100], [0.1, 0.2])]
    curves[1] = replace(curves[1], style="dashed")
    own = {label: {"purity": Number(0.5 + 0.1 * i, 0.01, 40, 0.2)} for i, label in enumerate(few)}
    chart = Result(
        numbers={"mean purity": Number(0.75, 0.0123, 240, 0.2)},
        members=own,
        figure=Figure("Purity <b>by</b> L0", "L0", "purity", curves, log_x=True),
    )
    rows = [Series(label, few, [i / 6 if i != j else None for j in range(len(few))]) for i, label in enumerate(few)]
    table = Result(members=own, figure=Figure("Likeness", "member", "other", rows, kind="map"))
    twins = [Series(f"topk-k_12-s{seed}", [1, 10], [0.5, 0.6 + seed / 9]) for seed in (0, 1)]
    twins += [Series(f"{one.name}, at random", [1, 10], [0.1, 0.2], style="dashed") for one in twins]
    pairs = {
        label: {f"like {other}": Number(0.5, 0.01, 40)} for label, other in zip(few, [*few[1:], few[0]], strict=True)
    }
    seeds = Result(members=pairs, figure=Figure("Seeds", "n", "KL, nats", twins))
    folder.mkdir(parents=True)
    for name, result in (("purity", chart), ("likeness", table), ("seeds", seeds)):
        (folder / f"{name}.json").write_text(json.dumps({"analysis": name, "config": {"n": 8}, **asdict(result)}))
    (folder / "theirs.json").write_text("[]")


def write_member(
    folder: Path, config: dict[str, Any], metrics: dict[str, Any], lines: int, latents: int, noise: random.Random
) -> None:
    """The files of a member that the page reads."""
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "metrics.jsonl").write_text(curve_lines(metrics["l0"], 900 * metrics["fvu"], lines, noise))
    density_F = np.array([noise.gauss(-3, 0.8) if noise.random() > 0.1 else -10.0 for _ in range(512)], np.float32)
    save_file({"sparsity": density_F.clip(-10, 0)}, folder / "sparsity.safetensors")
    provenance = {
        "command": "sae-sweep name=made sae=gated,topk 'sae.l0=8,32' model=gpt2",
        "config": config,
        "versions": {"python": "3.11.7", "sae-sweep": "0.1.0", "torch": "2.13.0"},
        "commit": "0123456789abcdef0123456789abcdef01234567+",
        "host": "node7",
        "device": "cuda:0",
        "started": "2026-11-30T00:00:00+00:00",
        "ended": "2026-11-30T02:05:00+00:00",
        "wall_seconds": 7500.0,
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    if latents:
        (folder / "analyses").mkdir()
        found = {"analysis": "latents", "config": {"seed": 0}, "details": [latent(noise) for _ in range(latents)]}
        (folder / "analyses" / "latents.json").write_text(json.dumps(found))


def latent(noise: random.Random) -> dict[str, Any]:
    """What the analysis `latents` says of one: contexts, neighbours, effects on tokens."""
    words = [" the", " def", "(", ")", ":\n", " self", ".", " return", " x", "<b>", " naïve"]

    def context() -> dict[str, Any]:
        activations = [round(noise.uniform(0.1, 9), 4) if noise.random() < 0.2 or i == 12 else 0.0 for i in range(25)]
        return {"tokens": [noise.choice(words) for _ in range(25)], "activations": activations, "position": 12}

    return {
        "latent": noise.randrange(512),
        "density": noise.uniform(1e-5, 0.05),
        "top": [context() for _ in range(5)],
        "quantiles": [[context() for _ in range(5)] for _ in range(4)],
        "random": [context() for _ in range(5)],
        "raises": [{"token": noise.choice(words), "by": noise.uniform(0, 1)} for _ in range(8)],
        "lowers": [{"token": noise.choice(words), "by": -noise.uniform(0, 1)} for _ in range(8)],
        "near": [{"latent": noise.randrange(512), "cosine": noise.uniform(0.2, 0.9)} for _ in range(8)],
    }
