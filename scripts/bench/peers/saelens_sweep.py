"""A sweep by sae-lens's `MultiSAETrainingRunner`, for `scripts/bench/sweep.py`; run in an environment that has it:

    .venv-interop/bin/python scripts/bench/peers/saelens_sweep.py REQUEST.json

It wraps the model as any Hugging Face one (`HookedProxyLM`, stopped at the site's module; a tokenizer is not needed),
reads the token rows that our stream reads in our order and counts the same positions, trains all members in one pass,
and saves each in its own format. The request's `marks` file gets the same times as `clocked_command.py` writes, and
the version.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sae_lens import (  # type: ignore[import-not-found]
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardTrainingSAEConfig,
    TopKTrainingSAEConfig,
    TrainingSAEConfig,
    __version__,
)
from sae_lens.config import LoggingConfig  # type: ignore[import-not-found]
from sae_lens.load_model import HookedProxyLM  # type: ignore[import-not-found]
from sae_lens.multi_sae_training_runner import (  # type: ignore[import-not-found]
    MultiSAETrainingRunner,
    MultiSAETrainingRunnerConfig,
)
from sae_lens.training.multi_sae_trainer import MultiSAETrainer  # type: ignore[import-not-found]
from transformers import AutoModelForCausalLM

CONFIGS: Mapping[str, Callable[..., TrainingSAEConfig]] = {
    "standard": StandardTrainingSAEConfig,
    "gated": GatedTrainingSAEConfig,
    "topk": TopKTrainingSAEConfig,
    "batchtopk": BatchTopKTrainingSAEConfig,
    "jumprelu": JumpReLUTrainingSAEConfig,
    "matryoshka": MatryoshkaBatchTopKTrainingSAEConfig,
}
"""Its own defaults but for what the request says."""
KNOBS = {"standard": "l1_coefficient", "gated": "l1_coefficient", "jumprelu": "l0_coefficient"}
WARMUPS = {"standard": "l1_warm_up_steps", "gated": "l1_warm_up_steps", "jumprelu": "l0_warm_up_steps"}
SCALES = {"sqrt_d": "expected_average_only_in", "none": "none"}
GROUPS = 5
"""Of matryoshka: the prefixes are those of our recipe."""


def watch(marks: dict[str, Any]) -> None:
    """Note when training began (after the inputs' scale was estimated, as ours is before it), each step, the end."""
    estimate, stepped, fit = (
        MultiSAETrainer._estimate_scaling_factors,
        MultiSAETrainer._checkpoint_if_needed,
        MultiSAETrainer.fit,
    )

    def clocked_estimate(self: Any) -> None:
        estimate(self)
        marks["begin"] = time.perf_counter()

    def clocked_step(self: Any) -> None:
        stepped(self)
        marks["steps"].append(time.perf_counter())

    def clocked_fit(self: Any) -> Any:
        found = fit(self)
        marks["end"] = time.perf_counter()
        return found

    MultiSAETrainer._estimate_scaling_factors = clocked_estimate
    MultiSAETrainer._checkpoint_if_needed = clocked_step
    MultiSAETrainer.fit = clocked_fit


def members(request: Mapping[str, Any]) -> dict[str, TrainingSAEConfig]:
    architecture = request["architecture"]
    common = {"d_in": request["d"], "d_sae": request["width"], "device": request["device"], "dtype": "float32"}
    common["normalize_activations"] = SCALES[request["input_scale"]]
    if architecture in WARMUPS:
        common[WARMUPS[architecture]] = request["sparsity_warmup_steps"]
    if architecture == "jumprelu" and request["input_scale"] != "none":  # else its own, which is for unscaled inputs
        common["jumprelu_bandwidth"] = request["bandwidth"]
    if architecture == "matryoshka":
        width = request["width"]
        inner = [width * (2**group - 1) // 2**GROUPS for group in range(1, GROUPS)]
        common["matryoshka_widths"] = [*inner, width]
    config, knob = CONFIGS[architecture], KNOBS.get(architecture, "k")
    return {name: config(**{knob: value}, **common) for name, value in request["members"].items()}


def runner_config(request: Mapping[str, Any], special: list[int]) -> MultiSAETrainingRunnerConfig:
    steps = request["tokens"] // request["batch"]
    return MultiSAETrainingRunnerConfig(
        saes=members(request),
        hook_names=request["module"],
        model_name=request["model"],
        model_class_name="AutoModelForCausalLM",
        context_size=request["context"],
        # Its unit is a row: as many activations are mixed as one of our blocks has.
        n_batches_in_buffer=request["block_rows"],
        store_batch_size_prompts=request["rows_per_forward"],
        training_tokens=steps * request["batch"],
        train_batch_size_tokens=request["batch"],
        exclude_special_tokens=special,
        seqpos_slice=(1, None),  # the first of a row is an attention sink whatever its token
        streaming=False,
        lr=request["lr"],
        lr_warm_up_steps=request["lr_warmup_steps"],
        lr_decay_steps=request["lr_decay_steps"],
        device=request["device"],
        autocast=False,
        n_batches_for_norm_estimate=request["norm_batches"],
        logger=LoggingConfig(log_to_wandb=False),
        checkpoint_path=None,
        output_path=request["output"],
    )


def main() -> int:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.manual_seed(request["seed"])
    marks: dict[str, Any] = {"steps": [], "version": __version__}
    watch(marks)
    rows = np.load(request["rows"])
    tokens = Dataset.from_dict({"tokens": rows["tokens"]})
    model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32, local_files_only=True)
    hooked = HookedProxyLM(model.to(request["device"]), None, hook_names=[request["module"]])
    config = runner_config(request, rows["special"].tolist())
    MultiSAETrainingRunner(config, override_dataset=tokens, override_model=hooked).run()
    Path(request["marks"]).write_text(json.dumps(marks), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
