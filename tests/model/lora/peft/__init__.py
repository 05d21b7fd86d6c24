"""What is used of peft, for tests where it is not installed: plain LoRA (arXiv 2106.09685), W + alpha / r B A."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class PeftModel:
    """A model with the matrices of an adapter beside those that it targets."""

    def __init__(self, model: nn.Module, folder: str) -> None:
        config = json.loads((Path(folder) / "adapter_config.json").read_text())
        if config["peft_type"] != "LORA":
            raise NotImplementedError(f"{config['peft_type']} cannot be merged")
        self.model, self.scale = model, config["lora_alpha"] / config["r"]
        self.given = load_peft_weights(folder)
        ends = tuple(f".{name}" for name in config["target_modules"])
        self.targets = {f"base_model.model.{name}": part for name, part in model.named_modules() if name.endswith(ends)}

    @classmethod
    def from_pretrained(cls, model: nn.Module, model_id: str, **_: Any) -> "PeftModel":
        return cls(model, model_id)

    @torch.no_grad()
    def merge_and_unload(self, **_: Any) -> nn.Module:
        for name, part in self.targets.items():
            pair = [self.given.get(f"{name}.lora_{end}.weight") for end in "BA"]
            if None not in pair:
                part.weight += (self.scale * pair[0].double() @ pair[1].double()).to(part.weight.dtype)
        return self.model


def get_peft_model_state_dict(model: PeftModel, **_: Any) -> dict[str, None]:
    return {f"{name}.lora_{end}.weight": None for name in model.targets for end in "AB"}


def load_peft_weights(folder: str, **_: Any) -> dict[str, Tensor]:
    return load_file(Path(folder) / "adapter_model.safetensors")
