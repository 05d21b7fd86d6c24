"""LoRA adapters of the tests' models, and what stands for peft where it is not installed."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

EQUATION = Path(__file__).parent / "lora"
TARGETS = ("q_proj", "down_proj")


def save_lora(folder: Path, model: Path, seed: int = 0) -> Path:
    """An adapter of rank 2 and alpha 6 in peft's layout, with random matrices."""
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, weight in load_file(model / "model.safetensors").items():
        if name.split(".")[-2] in TARGETS:
            shapes = {"A": (2, weight.shape[1]), "B": (weight.shape[0], 2)}
            for end, shape in shapes.items():
                key = f"base_model.model.{name.removesuffix('.weight')}.lora_{end}.weight"
                tensors[key] = torch.randn(shape, generator=generator) / 5
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 6, "target_modules": list(TARGETS)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def stand_in(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """While this goes on, `import peft` gives the equation of plain LoRA."""
    for name in [name for name in sys.modules if name.split(".")[0] == "peft"]:
        patch.delitem(sys.modules, name)
    patch.syspath_prepend(EQUATION)
    yield
    sys.modules.pop("peft", None)
