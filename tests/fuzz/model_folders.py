"""Folders of models that are not what they should be: one file of a sound one changed, lost, or one more."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.fuzz.junk import BYTES, JSON_VALUES, changed, damaged

Damage = Callable[[Path], None]

CONFIG_VALUES: tuple[Any, ...] = (
    *JSON_VALUES,
    1,
    2,
    7,
    64,
    2**20,
    2**31,
    0.5,
    "gpt2",
    "bert",
    "mamba",
    "silu",
    [1, 2],
    "float8",
)
"""Of config.json: sizes of other models among them."""
MORE: dict[str, Any] = {
    "quantization_config": {"quant_method": "gptq", "bits": 4},
    "auto_map": {"AutoModelForCausalLM": "mine.Model"},
    "text_config": {"hidden_size": 8},
    "sliding_window": 3,
    "rope_scaling": {"type": "yarn", "factor": 8},
    "is_encoder_decoder": True,
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "llama4",
    "pad_token_id": 10**6,
    "bos_token_id": [1, 2],
    "attn_implementation": "flash_attention_2",
}
BESIDE = ("adapter_config.json", "generation_config.json", "model.safetensors.index.json", "special_tokens_map.json")
JSONS = ("config.json", "tokenizer.json", "tokenizer_config.json")


def model_folder(random: Random) -> Damage:
    """What changes the copy of a sound model's folder."""
    damages = (*(_entry,) * 5, *(_weights,) * 3, _more, _bytes, _lost, _beside, _no_file)
    return random.choice(damages)(random)


def _entry(random: Random) -> Damage:
    name = random.choice((*("config.json",) * 3, *JSONS))

    def damage(folder: Path) -> None:
        file = folder / name
        file.write_bytes(changed(file.read_text(), random, CONFIG_VALUES if name == "config.json" else JSON_VALUES))

    return damage


def _more(random: Random) -> Damage:
    key = random.choice(list(MORE))

    def damage(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), key: MORE[key]}))

    return damage


def _bytes(random: Random) -> Damage:
    name, junk = random.choice((*JSONS, "model.safetensors")), random.choice((None, None, *BYTES))

    def damage(folder: Path) -> None:
        file = folder / name
        file.write_bytes(damaged(file.read_bytes(), random) if junk is None else junk)

    return damage


def _weights(random: Random) -> Damage:
    change = random.choice(CHANGES)

    def damage(folder: Path) -> None:
        file = folder / "model.safetensors"
        tensors = load_file(file)
        name = random.choice(sorted(tensors))
        tensors |= {key: tensor.contiguous() for key, tensor in change(name, tensors.pop(name)).items()}
        save_file(tensors, file, {"format": "pt"})

    return damage


CHANGES: tuple[Callable[[str, Tensor], dict[str, Tensor]], ...] = (
    lambda name, tensor: {},
    lambda name, tensor: {name: tensor.T if tensor.ndim == 2 else tensor[:-1]},
    lambda name, tensor: {f"{name}.more": tensor},
    lambda name, tensor: {name: tensor, "more": tensor.clone()},
    lambda name, tensor: {name: tensor * torch.nan},
    lambda name, tensor: {name: tensor * 1e38},
    lambda name, tensor: {name: tensor * 0},
    lambda name, tensor: {name: tensor.int()},
    lambda name, tensor: {name: tensor.half()},
    lambda name, tensor: {name: tensor[:0]},
    lambda name, tensor: {name: tensor[None]},
)


def _lost(random: Random) -> Damage:
    name = random.choice((*JSONS, "model.safetensors"))
    return lambda folder: (folder / name).unlink()


def _beside(random: Random) -> Damage:
    name, junk = random.choice(BESIDE), random.choice((*BYTES, b"{}", b'{"weight_map": {"a": "../b.safetensors"}}'))

    def damage(folder: Path) -> None:
        (folder / name).write_bytes(junk)
        if name.endswith(".index.json") and random.random() < 0.7:
            (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")

    return damage


def _no_file(random: Random) -> Damage:
    name = random.choice((*JSONS, "model.safetensors"))
    make = random.choice((Path.mkdir, os.mkfifo, lambda file: file.symlink_to(file)))

    def damage(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return damage
