"""The two sides of the sweep benchmark: the same members trained by our command, and by sae-lens's multi-SAE runner."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae_sweep.activations.scaling import site_statistics
from sae_sweep.config import DataConfig, MemberConfig
from sae_sweep.data.tokens import open_tokens
from sae_sweep.evaluation.evaluate import Candidate
from sae_sweep.interop.saelens import load_sae
from sae_sweep.plan import plan_sweep
from sae_sweep.training.sources import LanguageModelSource
from scripts.bench.measure import ROOT
from scripts.bench.own import configured
from scripts.bench.peers.client import PEERS, SAELENS, Unavailable, environment_variables

MODEL = ROOT / "sae_sweep" / "assets" / "demo_lm"
D = 128
"""Of the model that ships."""
NORM_BATCHES = 32
"""Batches from which sae-lens estimates the inputs' norm; our calibration block is about as many activations."""
WARMUP_SHARE = 20
"""Warm-ups, of lr and of the L1 coefficient, are 1 / 20 of the run on both sides."""
SAME_LOSS = {"standard": "standard_april", "gated": "gated_decoder_norm", "topk": "topk"}
"""Our recipe with sae-lens's loss: a coefficient means the same on both sides."""
PAPERS = {"standard": "standard", "gated": "gated", "topk": "topk"}
Point = dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """One architecture's members, and how they are trained on both sides."""

    architecture: str
    recipe: str
    """Our name of it: `sae=`."""
    values: tuple[float, ...]
    """k, or the L1 coefficient in the unit of inputs scaled to a mean norm of sqrt(d)."""
    width: int
    tokens: int
    batch: int
    lr: float
    decay: float
    layer: int
    evaluation_tokens: float
    device: str
    seed: int

    @property
    def knob(self) -> str:
        return "k" if self.architecture == "topk" else "l1"

    @property
    def steps(self) -> int:
        return self.tokens // self.batch

    @property
    def hook(self) -> str:
        return f"blocks.{self.layer}.hook_resid_post"

    def few(self, values: Sequence[float]) -> "Sweep":
        """The same with other members."""
        return Sweep(**{**self.__dict__, "values": tuple(values)})

    def overrides(self, name: str, output: Path) -> list[str]:
        """What follows `sae-sweep` on the command line."""
        warmup = self.steps // WARMUP_SHARE
        values = ",".join(f"{value:g}" for value in self.values)
        return [
            *(f"name={name}", f"output_dir={output}", "tracking=none", "model=demo", f"model.device={self.device}"),
            *("data=demo", "site=resid_post", f"site.layer={self.layer}"),
            *(f"sae={self.recipe}", f"sae.{self.knob}={values}", f"sae.width={self.width}", "sae.input_scale=sqrt_d"),
            *(f"training.tokens={self.steps * self.batch}", f"training.batch_size={self.batch}"),
            *(f"training.lr={self.lr:g}", f"training.lr_warmup_steps={warmup}"),
            *(f"training.lr_decay_fraction={self.decay:g}", f"training.sparsity_warmup_steps={warmup}"),
            *(f"evaluation.tokens={self.evaluation_tokens:g}", f"seed={self.seed}"),
        ]


@dataclass(frozen=True)
class Run:
    """One side's whole run."""

    seconds: float
    """Of the whole process, from its start to its end."""
    marks: Mapping[str, Any]
    """When training began and ended, and each step of all members ended."""
    folder: Path
    """The members' folders are in it."""

    @property
    def training(self) -> float:
        return float(self.marks["end"] - self.marks["begin"])

    def quarter(self, last: bool) -> float:
        """Seconds per step of all members over the first or last quarter of the steps."""
        steps = [self.marks["begin"], *self.marks["steps"]]
        count = max(1, (len(steps) - 1) // 4)
        first = len(steps) - 1 - count if last else 0
        return float(steps[first + count] - steps[first]) / count * self.marks.get("parts", 1)


def run_ours(sweep: Sweep, work: Path, name: str) -> Run:
    """The whole command: tokenising, calibration, training, evaluation, report."""
    marks = work / f"{name}.marks.json"
    command = [sys.executable, str(ROOT / "scripts" / "bench" / "clocked_command.py"), str(marks)]
    took = _run([*command, *sweep.overrides(name, work)], "our command")
    return Run(took, json.loads(marks.read_text(encoding="utf-8")), work / name)


def run_saelens(sweep: Sweep, work: Path, name: str, rows: Path, config: MemberConfig) -> Run:
    """The whole script: loading, scale estimate, training, saving; it evaluates nothing and tokenises nothing."""
    if not SAELENS.python.exists():
        raise Unavailable(f"{SAELENS.folder.name} is missing; run `make {SAELENS.folder.name}`")
    marks, request = work / f"{name}.marks.json", work / f"{name}.request.json"
    files = {"rows": str(rows), "marks": str(marks), "output": str(work / name)}
    request.write_text(json.dumps(_request(sweep, config.data) | files), encoding="utf-8")
    took = _run([str(SAELENS.python), str(PEERS / "saelens_sweep.py"), str(request)], SAELENS.name)
    return Run(took, json.loads(marks.read_text(encoding="utf-8")), work / name)


def _request(sweep: Sweep, data: DataConfig) -> dict[str, Any]:
    """What sae-lens's runner is asked for: the same as our overrides say."""
    warmup = sweep.steps // WARMUP_SHARE
    return {
        "architecture": sweep.architecture,
        "members": {f"{sweep.knob}_{value:g}": _whole(value) for value in sweep.values},
        "d": D,
        "width": sweep.width,
        "normalize_activations": "expected_average_only_in",
        "norm_batches": NORM_BATCHES,
        "model": str(MODEL),
        "hook": f"model.layers.{sweep.layer}",
        "context": data.context,
        "block_rows": data.block_rows,
        "rows_per_forward": data.rows_per_forward,
        "tokens": sweep.tokens,
        "batch": sweep.batch,
        "lr": sweep.lr,
        "lr_warmup_steps": warmup,
        "lr_decay_steps": round(sweep.decay * sweep.steps),
        "sparsity_warmup_steps": warmup,
        "seed": sweep.seed,
        "device": sweep.device,
    }


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value


def _run(command: Sequence[str], who: str) -> float:
    """Seconds that a command took. Raises Unavailable with the last thing it said where it failed."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment_variables(), capture_output=True, text=True, check=False)
    took = time.perf_counter() - start
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{who} failed: {said[-1] if said else 'it said nothing'}")
    return took


class Bench:
    """What both sides share: the rows of tokens, and the judge."""

    def __init__(self, config: MemberConfig, hook: str) -> None:
        self.config, self._hook = config, hook
        self._source = LanguageModelSource(config, [hook])
        block = self._source.calibration()
        means = {hook: site_statistics(block)[hook].mean}
        self._judge = self._source.judge(config.evaluation.positions, means)

    @classmethod
    def of(cls, sweep: Sweep) -> "Bench":
        (member,) = plan_sweep([configured(sweep.few(sweep.values[:1]).overrides("bench", Path("unused")))]).members
        return cls(member.config, sweep.hook)

    def save_rows(self, sweep: Sweep, file: Path) -> None:
        """The rows of tokens that training reads, in its order, with some to spare for sae-lens's buffer."""
        model, data = self._source.model, self.config.data
        tokens = open_tokens(data, self.config.evaluation.tokens, model.tokenizer, model.facts.vocab_size)
        wanted = sweep.tokens + NORM_BATCHES * sweep.batch
        count = math.ceil(1.1 * wanted / (data.block_rows * (data.context - 1))) + 2
        np.savez(file, tokens=np.concatenate([tokens.training.block(index)[0] for index in range(count)]))

    def our_points(self, folder: Path) -> list[Point]:
        """From the metrics that our command wrote."""
        found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*/metrics.json"))]
        names = [file.parent.name for file in sorted(folder.glob("*/metrics.json"))]
        return [_point(name, metrics) for name, metrics in zip(names, found, strict=True)]

    def saelens_points(self, folder: Path) -> list[Point]:
        """The same evaluation, same held-out tokens, of what sae-lens saved."""
        candidates = [self._candidate(file.parent) for file in sorted(folder.glob("*/cfg.json"))]
        judged = self._judge.judge(candidates)
        return [_point(name, judgement.metrics) for name, judgement in judged.items()]

    def _candidate(self, folder: Path) -> Candidate:
        sae = load_sae(folder)
        for name, tensor in sae.tensors.items():
            sae.tensors[name] = tensor.to(self._source.device, torch.float32)
        return Candidate(folder.name, self._hook, sae)


def _point(name: str, metrics: Mapping[str, Any]) -> Point:
    return {"member": name, **{key: metrics[key] for key in ("l0", "ce_recovered", "fvu", "alive")}}
