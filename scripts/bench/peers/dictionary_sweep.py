"""A sweep by dictionary_learning's `trainSAE`, for `scripts/bench/sweep.py`; run in an environment that has it:

    .venv-dictionary/bin/python scripts/bench/peers/dictionary_sweep.py REQUEST.json

Its buffer of activations reads text; instead of it a generator runs the same Hugging Face model, stopped at the site,
over the token rows that our stream reads in our order, in blocks that are permuted as ours are. The inputs are scaled
here, since `trainSAE` knows the unit scale alone: so a coefficient means what it means on the other sides. The
request's `marks` file gets the same times as `clocked_command.py` writes, the scale and the version.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer  # type: ignore[import-not-found]
from dictionary_learning.trainers.gdm import GatedSAETrainer  # type: ignore[import-not-found]
from dictionary_learning.trainers.jumprelu import JumpReluTrainer  # type: ignore[import-not-found]
from dictionary_learning.trainers.p_anneal import PAnnealTrainer  # type: ignore[import-not-found]
from dictionary_learning.trainers.standard import (  # type: ignore[import-not-found]
    StandardTrainer,
    StandardTrainerAprilUpdate,
)
from dictionary_learning.trainers.top_k import TopKTrainer  # type: ignore[import-not-found]
from dictionary_learning.training import trainSAE  # type: ignore[import-not-found]
from torch import Tensor
from transformers import AutoModelForCausalLM

TRAINERS: Mapping[str, tuple[Callable[..., Any], str]] = {
    "standard": (StandardTrainerAprilUpdate, "l1_penalty"),
    "standard_bricken": (StandardTrainer, "l1_penalty"),
    "p_anneal": (PAnnealTrainer, "initial_sparsity_penalty"),
    "gated": (GatedSAETrainer, "l1_penalty"),
    "topk": (TopKTrainer, "k"),
    "batchtopk": (BatchTopKTrainer, "k"),
    "jumprelu": (JumpReluTrainer, "target_l0"),
}
"""With the knob; its own defaults but for what the request says."""
WITH_SPARSITY_WARMUP = ("standard", "standard_bricken", "p_anneal", "gated", "jumprelu")
THRESHOLD_START = 1000
"""The step from which its topk and batchtopk learn their threshold by default; half of a run that is shorter."""

ANNEAL_START = 15_000
"""The step from which its p falls by default; a quarter of a run that is shorter."""
ANNEALING = {"p_end": 0.2, "sparsity_function": "Lp^p"}
"""As in the paper. With its defaults, p to 0 and the p-th root of the sum, it divides by 0 once the next p is 0."""


class _Found(Exception):  # noqa: N818 - it reports no error
    pass


class Activations:
    """Batches [B, D] of scaled activations, from a model that stops at the site."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        rows = np.load(request["rows"])
        self._tokens_RT, self._special = torch.from_numpy(rows["tokens"]).long(), torch.from_numpy(rows["special"])
        self._request, self._device = request, torch.device(request["device"])
        loaded = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32, local_files_only=True)
        self._model = cast(torch.nn.Module, loaded)
        self._model.to(self._device)
        self._model.get_submodule(request["module"]).register_forward_hook(self._take)
        self.scale = 1.0
        self.scale = self._scale(next(self._blocks()))

    def _take(self, module: Any, inputs: Any, output: Any) -> None:
        self._taken_RTD = output[0] if isinstance(output, tuple) else output
        raise _Found

    def _scale(self, x_ND: Tensor) -> float:
        """Of the inputs: to a mean norm of sqrt(d), or to a mean squared norm of 1."""
        norms_N = x_ND.norm(dim=1)
        if self._request["input_scale"] == "unit":
            return 1 / math.sqrt(float(norms_N.square().mean()))
        return math.sqrt(x_ND.shape[1]) / float(norms_N.mean())

    @torch.no_grad()
    def _blocks(self) -> Iterator[Tensor]:
        """[N, D] each, without special tokens and the first of each row, permuted."""
        generator = torch.Generator().manual_seed(self._request["seed"])
        for rows_RT in self._tokens_RT.split(self._request["block_rows"]):
            parts = []
            for tokens_RT in rows_RT.split(self._request["rows_per_forward"]):
                with suppress(_Found):
                    self._model(input_ids=tokens_RT.to(self._device), use_cache=False)
                counted_RT = ~torch.isin(tokens_RT, self._special)
                counted_RT[:, 0] = False  # an attention sink whatever its token
                parts.append(self._taken_RTD[counted_RT.to(self._device)])
            x_ND = torch.cat(parts)
            yield self.scale * x_ND[torch.randperm(len(x_ND), generator=generator).to(self._device)]

    def batches(self) -> Iterator[Tensor]:
        """Whole ones; what is left over of a block is not used."""
        size = self._request["batch"]
        for block_ND in self._blocks():
            for start in range(0, len(block_ND) - size + 1, size):
                yield block_ND[start : start + size]


def clocked(batches: Iterator[Tensor], marks: dict[str, Any]) -> Iterator[Tensor]:
    """The batches; asking for the next one says that all members have taken their step."""
    marks["begin"] = time.perf_counter()
    for batch in batches:
        yield batch
        marks["steps"].append(time.perf_counter())


def trainer_configs(request: Mapping[str, Any], steps: int) -> list[dict[str, Any]]:
    architecture = request["architecture"]
    trainer, knob = TRAINERS[architecture]
    common: dict[str, Any] = {
        "trainer": trainer,
        "steps": steps,
        "activation_dim": request["d"],
        "dict_size": request["width"],
        "layer": request["layer"],
        "lm_name": request["model"],
        "lr": request["lr"],
        "warmup_steps": request["lr_warmup_steps"],
        "decay_start": steps - request["lr_decay_steps"] if request["lr_decay_steps"] else None,
        "seed": request["seed"],
        "device": request["device"],
    }
    if architecture in WITH_SPARSITY_WARMUP:
        common["sparsity_warmup_steps"] = request["sparsity_warmup_steps"]
    else:
        common["threshold_start_step"] = min(THRESHOLD_START, steps // 2)
    if architecture == "p_anneal":  # its default, 15,000 steps, is later than a short run ends
        common |= {"anneal_start": min(ANNEAL_START, steps // 4), **ANNEALING}
    return [{**common, knob: value} for value in request["members"].values()]


def main() -> int:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.manual_seed(request["seed"])
    steps = request["tokens"] // request["batch"]
    marks: dict[str, Any] = {"steps": [], "version": version("dictionary-learning")}
    activations, output = Activations(request), Path(request["output"])
    marks["scale"] = activations.scale
    trainSAE(
        data=clocked(islice(activations.batches(), steps), marks),
        trainer_configs=trainer_configs(request, steps),
        steps=steps,
        save_dir=str(output),
        device=request["device"],
    )
    marks["end"] = marks["steps"][-1]
    config = json.loads((output / "trainer_0" / "config.json").read_text(encoding="utf-8"))
    marks["dict_class"] = config["trainer"]["dict_class"]
    for index, name in enumerate(request["members"]):
        (output / f"trainer_{index}").rename(output / name)
    Path(request["marks"]).write_text(json.dumps(marks), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
