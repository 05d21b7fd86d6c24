"""What the sides of the sweep benchmark share: the rows of tokens, and the evaluator."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae_sweep.activations.scaling import site_statistics
from sae_sweep.config.schema import MemberConfig
from sae_sweep.config.values import finite
from sae_sweep.data.tokens import open_tokens
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.interop import load_sae
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.training.run.sources import LanguageModelSource
from scripts.bench.conversion import load_dictionary_learning
from scripts.bench.own import configured
from scripts.bench.sides import Run
from scripts.bench.sweeps import DICTIONARY, NORM_BATCHES, OURS, SAELENS, Sweep

Point = dict[str, Any]


class CommonGround:
    """The tokens one sweep is trained on, and our evaluation on held-out ones."""

    def __init__(self, config: MemberConfig, hook: str) -> None:
        self.config, self._hook = config, hook
        self._source = LanguageModelSource(config, [hook])
        block = self._source.calibration()
        means = {hook: site_statistics(block)[hook].mean}
        self._evaluator = self._source.evaluator(config.evaluation.positions, means)

    @classmethod
    def of(cls, sweep: Sweep) -> "CommonGround":
        (member,) = plan_sweep([configured(sweep.few(1).overrides("bench", Path("unused")))]).members
        return cls(member.config, sweep.hook)

    def save_rows(self, sweep: Sweep, file: Path) -> None:
        """The rows [R, T] of tokens that training reads, in its order, with some to spare for sae-lens's buffer; and
        the ids of special tokens, whose activations nobody trains on."""
        model, data = self._source.model, self.config.data
        tokens = open_tokens(data, self.config.evaluation.tokens, model.tokenizer, model.facts.vocab_size)
        wanted = sweep.tokens + NORM_BATCHES * sweep.batch
        count = math.ceil(1.1 * wanted / (data.block_rows * (data.context - 1))) + 2
        rows = np.concatenate([tokens.training.block(index)[0] for index in range(count)])
        special = model.tokenizer.all_special_ids if model.tokenizer is not None else []
        np.savez(file, tokens=rows, special=np.array(special, dtype=np.int64))

    def points(self, side: str, run: Run, sweep: Sweep) -> list[Point]:
        """What our command wrote of its members; the same evaluation, same held-out tokens, of what a peer saved."""
        if side == OURS:
            return own_points(run.folder)
        folders = {name: run.folder / name for name in sweep.members[side].named()}
        readers = {SAELENS: load_sae, DICTIONARY: lambda folder: _dictionary(folder, run)}
        found = self._evaluator.evaluate([self._spliced(name, readers[side](path)) for name, path in folders.items()])
        return [_point(name, evaluation.metrics) for name, evaluation in found.items()]

    def _spliced(self, name: str, sae: InferenceSae) -> SplicedSae:
        for key, tensor in sae.tensors.items():
            sae.tensors[key] = tensor.to(self._source.device, torch.float32)
        return SplicedSae(name, self._hook, sae)


def own_points(sweep: Path) -> list[Point]:
    """What our command wrote of the members in a sweep's folder; beside what is judged, what steering came to."""
    metrics = {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in sweep.glob("*/metrics.json")}
    told = {
        name: {key: finite(own[key]) for key in ("l0_untrimmed", "coefficient_final")} for name, own in metrics.items()
    }
    return [_point(name, metrics[name]) | told[name] for name in sorted(metrics)]


def _dictionary(folder: Path, run: Run) -> InferenceSae:
    return load_dictionary_learning(folder, run.marks["dict_class"], run.marks["scale"])


def _point(name: str, metrics: Mapping[str, Any]) -> Point:
    return {
        "member": name,
        **{key: finite(metrics[key]) for key in ("l0", "ce_recovered", "ce_recovered_se", "fvu", "alive")},
    }
