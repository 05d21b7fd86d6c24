"""The folder that one stream's cached activations lie in: what it is named by, its files, how many there will be.

    DIR/<key>-<device>/
      about.json                                       what the key is a hash of
      000012-tokens.safetensors                        `tokens` [B] int64
      000012-blocks.3.hook_resid_post.safetensors      `activations` [B, d], each of its token above

No torch here: a plan reads it.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sae_sweep.config.schema import MemberConfig, ModelConfig
from sae_sweep.data.origin import keeps_apart
from sae_sweep.model.adapters import FILES, adapter_folder
from sae_sweep.model.facts import model_folder
from sae_sweep.model.second import models_of
from sae_sweep.plan.fingerprints import weight_files
from sae_sweep.plan.groups import stream_entries
from sae_sweep.plan.members import digest

LAYOUT = 1
"""Of the files; another one when their content, or what harvesting gives, changes."""
ABOUT = "about"
"""What a folder's json is called, and in a file's header the entry that says what it is."""
TOKENS = "tokens"


def cache_key(config: MemberConfig) -> str:
    """Hash of `cache_entries`: 12 hex digits."""
    return digest(cache_entries(config))[:12]


def cache_entries(config: MemberConfig) -> dict[str, Any]:
    """What a block of activations follows from, but for the device and what is compared block by block.

    A local model is known by its folder and by names, sizes and times of its files: saving other weights over it, or
    touching it, makes another key. Weights of the same sizes that are put there with the old times are not noticed. Of
    a hub model the revision is here; its commit, and whatever changes the tokens (data under the same path, the
    tokenizer), are compared block by block (`sae_sweep/activations/cache.py`). Sites have files of their own.
    """
    entries = stream_entries(config)
    entries["data"].pop("max_norm_ratio")  # drops rows after they are read
    if keeps_apart(config.data):
        entries["reserved"] = None
    weights = _weights(config.model)
    if weights is not None:
        entries["model"]["path"] = weights["folder"]
    second = [_weights(one) for one in models_of(config)[1:]]
    if second and second[0] is not None:
        entries["model"]["second"] = second[0]["folder"]
    beside = {"transformer-lens": config.model.backend == "transformer_lens", "bitsandbytes": config.model.quantize}
    libraries = ["torch", "transformers", *(library for library, read in beside.items() if read)]
    versions = {library: version(library) for library in libraries}
    made = {"layout": LAYOUT, **entries, "weights": weights, "versions": versions}
    return {**made, "second": second[0]} if second else made


def block_file(folder: Path, index: int, name: str) -> Path:
    """Where a block's activations at a hook are, or its TOKENS."""
    return folder / f"{index:06d}-{_ending(name)}"


def files_there(folder: Path, hooks: Sequence[str], blocks: int) -> int:
    """How many of the files of the first so many blocks at these hooks there are."""
    # What there is is few, even where what is asked for is not.
    numbers = [path.name.partition("-")[0] for hook in hooks for path in folder.glob(f"*-{_ending(hook)}")]
    return sum(number.isdecimal() and int(number) < blocks for number in numbers)


def _ending(name: str) -> str:
    return f"{quote(name, safe='')}.safetensors"


def _weights(model: ModelConfig) -> dict[str, Any] | None:
    """A local model's folder, and sizes and times of its files by name; None for a hub model."""
    folder, adapter = model_folder(model), adapter_folder(model)
    if folder is None:
        return None
    files = weight_files(folder)
    if adapter is not None:
        files |= {f"{adapter.resolve()}/{name}": about for name, about in weight_files(adapter, FILES).items()}
    return {"folder": str(folder.resolve()), "files": files}
