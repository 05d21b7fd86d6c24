"""Whether the tensors of a checkpoint are those of the model that its config.json makes.

A model that lacks a tensor would be random there, and one that has more than is read was another model: both are
refused. Of what stands beside the language model (a value head, a vision tower, heads that guess several tokens) and of
buffers that are made anew it is told that it is not read.
"""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError

log = logging.getLogger(__name__)

WHOLE, INDEX, ADAPTER_WEIGHTS = "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"
BUFFERS = re.compile(
    r"(^|\.)(inv_freq|masked_bias|position_ids|cos_cached|sin_cached)$|(attn|attention)\.bias$|rotary_emb\."
)
"""Names of what no training has changed: causal masks, positions and their frequencies."""
TOWERS = re.compile(r"vision|visual|image|audio|speech|video|multi_?modal|mm_")
HEADS = re.compile(r"mtp|medusa|head|classifier|pooler|score")
"""Names of parts of a model that its text does not go through; of heads beside its own, at its top alone."""


def check_files(folder: Path, config: ModelConfig) -> None:
    """Raises ConfigError for weights of whole numbers, which are codes of a quantisation that nothing says, and for
    those of an adapter; tells of files that are not read."""
    read = _files_read(folder)
    there = {file.name for file in folder.glob("*.safetensors")}
    if ADAPTER_WEIGHTS in there - read:
        raise ConfigError(
            f"model.path={config.path}: the folder has {ADAPTER_WEIGHTS}, and its adapter would be left out; merge it"
            " (peft's merge_and_unload, then save_pretrained) and give that folder, or give the base model's own"
        )
    if left := sorted(there - read):
        log.warning("model.path=%s: %s is not read; %s", config.path, ", ".join(left), f"{', '.join(sorted(read))} is")
    for name in sorted(read & there):
        if (whole := _whole_numbers(folder / name)) is not None:
            raise ConfigError(
                f"model.path={config.path}: {whole} holds whole numbers, as quantised weights do, and activations of"
                " these are not supported; give the checkpoint that they were made from"
            )


def check_tensors(module: nn.Module, info: Mapping[str, Any], config: ModelConfig) -> None:
    """Raises ConfigError where tensors are of another shape, missing, or of a part of the model that it has not; tells
    of others that are not read. `info` is what loading says of names."""
    if other := sorted(info["mismatched_keys"]):
        name, found, wanted = other[0]
        raise ConfigError(
            f"model.path={config.path}: {name} has the shape {list(found)}, and {list(wanted)} by config.json: they are"
            " not of one model; give a checkpoint as it was saved"
        )
    if lost := sorted(info["missing_keys"]):
        raise ConfigError(
            f"model.path={config.path}: its weights lack {len(lost)} of the model's tensors ({lost[0]}, ...), which"
            " would be random; give a complete checkpoint"
        )
    unread = sorted(info["unexpected_keys"])
    if changing := [name for name in unread if _changes(module, name)]:
        raise ConfigError(
            f"model.path={config.path}: {len(changing)} of its tensors are of no part that the model of its config.json"
            f" has ({changing[0]}, ...), and without them it is another model; give the config.json that they were"
            " saved with"
        )
    if unread:
        log.warning(
            "model.path=%s: %d of its tensors are not read (%s, ...): the model of its config.json has none such",
            *(config.path, len(unread), unread[0]),
        )


def _changes(module: nn.Module, name: str) -> bool:
    """Whether text would go through a tensor of this name: it belongs to a part that the model has, or is a part of its
    backbone that is no tower or head."""
    if BUFFERS.search(name):
        return False
    prefix = getattr(module, "base_model_prefix", "")
    inside, rest = _known(module, name)
    if not inside:  # saved of the backbone alone
        deeper = _known(module, f"{prefix}.{name}")
        inside, rest = deeper if len(deeper[0]) > 1 else (inside, rest)
    if any(TOWERS.search(word) for word in (*inside, rest)):
        return False
    return not HEADS.search(rest) if inside == [prefix] else bool(inside)


def _known(module: nn.Module, name: str) -> tuple[list[str], str]:
    """The words of a name that lead to a module, and the one after them."""
    at, words = module, name.split(".")
    for place, word in enumerate(words):
        children = dict(at.named_children())
        if word not in children:
            return words[:place], word
        at = children[word]
    return words, ""


def _files_read(folder: Path) -> set[str]:
    """The names of the files that transformers reads."""
    if (folder / WHOLE).is_file():
        return {WHOLE}
    with suppress(OSError, ValueError, KeyError, AttributeError, TypeError):  # what is wrong with it, loading says
        named: Iterable[Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        return {str(name) for name in named}
    return {file.name for file in folder.glob("*.safetensors")}


def _whole_numbers(file: Path) -> str | None:
    """The name of a weight or bias of whole numbers; None where there is none, or the file is damaged."""
    with suppress(SafetensorError, OSError), safe_open(file, framework="pt") as opened:
        names = opened.keys()  # it is no mapping, and cannot be iterated itself
        for name in names:
            whole = opened.get_slice(name).get_dtype()[0] in "IU"
            if whole and name.endswith(("weight", "bias")) and not BUFFERS.search(name):
                return str(name)
    return None
