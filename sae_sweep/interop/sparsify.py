"""SAEs and transcoders of `sparsify`: `cfg.json` beside `sae.safetensors`.

    encoder.weight [F, D]  encoder.bias [F]  W_dec [F, D]  b_dec [D]  W_skip [D, D] where there is a skip

An autoencoder subtracts b_dec, a transcoder does not; of k latents those above 0 count.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sae_sweep.folder.files import replacing, write_json_atomic
from sae_sweep.interop._checked import checked_sae, integer, read_json, read_safetensors
from sae_sweep.interop._names import to_ours, to_theirs
from sae_sweep.saes.forms.topk import TopKForm
from sae_sweep.saes.inference import InferenceSae

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
TENSORS = {"encoder.weight.T": "W_enc", "encoder.bias": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
SKIP = {"W_skip": "W_skip"}


def recognise(folder: Path) -> bool:
    """Whether a folder holds one of theirs: SAELens has a cfg.json too, and other weights."""
    return (folder / WEIGHTS).is_file()


def read(folder: Path) -> InferenceSae:
    """The SAE or transcoder. Raises ValueError for another activation than topk, and files that don't agree."""
    config, file = read_json(folder / CONFIG, ("d_in", "k")), folder / WEIGHTS
    if config.get("activation", "topk") != "topk":
        raise ValueError(f"{folder / CONFIG}: activation {config['activation']} is not topk, the one that is read")
    skip, transcodes = bool(config.get("skip_connection")), bool(config.get("transcode"))
    names = TENSORS | SKIP if skip else TENSORS
    tensors = to_ours(file, read_safetensors(file), names, "sparsify")
    d = integer(folder / CONFIG, config, "d_in")
    width = config.get("num_latents") or d * integer(folder / CONFIG, config, "expansion_factor")
    form = TopKForm(integer(folder / CONFIG, config, "k"))
    shapes = form.shapes(d, width, d) | ({"W_skip": (d, d)} if skip else {})
    return checked_sae(file, form, tensors, subtract_b_dec=not transcodes, transcodes=transcodes, shapes=shapes)


def write(
    folder: Path, sae: InferenceSae, metadata: Mapping[str, Any], frequency_F: Tensor | None, dtype: torch.dtype
) -> None:
    """Write a TopK SAE or transcoder. Raises ValueError for what they have not."""
    if not isinstance(sae.form, TopKForm) or sae.sites > 1 or sae.lookup is not None or sae.d != sae.d_out:
        what = "no crosscoder, no lookup table, and as many numbers given as read"
        raise ValueError(f"sparsify has TopK alone: {what}")
    form, sae = sae.form, sae.plain() if sae.transcodes else sae.subtracting()
    skip = "W_skip" in sae.tensors
    tensors = to_theirs(sae.tensors, TENSORS | SKIP if skip else TENSORS, dtype)
    config = {"activation": "topk", "expansion_factor": sae.width // sae.d, "normalize_decoder": True, "k": form.k}
    config |= {"num_latents": sae.width, "multi_topk": False, "d_in": sae.d}
    config |= {"skip_connection": skip, "transcode": sae.transcodes}
    write_json_atomic(folder / CONFIG, config)
    with replacing(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary)
