"""SAEs of OSU-NLP-Group/saev: one file, a line of JSON, then what `torch.save` wrote.

    W_enc [D, F]  b_enc [F]  W_dec [F, D]  b_dec [D]  activation.threshold

Nothing is subtracted before the encoder. BatchTopK cuts at `activation.threshold`; files from before there was one cut
each token at its own k largest.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_sweep.interop._checked import checked_sae, integer, read_torch, tensors_alone
from sae_sweep.interop._names import to_ours
from sae_sweep.saes.form import InferenceForm
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.forms.topk import TopKForm
from sae_sweep.saes.inference import InferenceSae

NAMES = {name: name for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
THRESHOLD = "activation.threshold"
LONGEST = 2**20
"""Bytes of a first line that is looked at."""


def recognise(place: Path) -> bool:
    """Whether it is a file that begins with their line, or the folder of one."""
    return _file(place) is not None


def read(place: Path) -> InferenceSae:
    """The SAE as it encodes. Raises ValueError for an activation that there is not, and damaged files."""
    file = _file(place)
    if file is None:
        raise ValueError(f"{place} does not begin with the line of JSON that saev writes")
    line, header = _header(file)
    assert header is not None
    found = tensors_alone(file, read_torch(file, after=line))
    threshold = found.pop(THRESHOLD, None)
    tensors, form = to_ours(file, found, NAMES, "saev"), _form(file, header, threshold is not None)
    if isinstance(form, JumpReluForm):
        assert threshold is not None
        tensors["threshold"] = threshold.float().relu().expand_as(tensors["b_enc"])
    return checked_sae(file, form, tensors, subtract_b_dec=False)


def _form(file: Path, header: Mapping[str, Any], cuts: bool) -> InferenceForm:
    """By the activation, which was written in three ways."""
    config = header.get("cfg")
    config = config if isinstance(config, dict) else {}
    activation = config.get("activation")
    if isinstance(activation, dict):
        named, values = str(activation.get("cls")), activation.get("params")
    else:
        named, values = str(header.get("cls", "Relu")), config
    named = "Relu" if named == "SparseAutoencoderConfig" else named
    if named == "Relu":
        return ReluForm()
    if named == "BatchTopK" and cuts:
        return JumpReluForm()
    if named in ("TopK", "BatchTopK"):
        return TopKForm(integer(file, values if isinstance(values, dict) else {}, "top_k"))
    raise ValueError(f"{file}: activation {named[:40]} is not one of Relu, TopK, BatchTopK")


def _file(place: Path) -> Path | None:
    """The first file there that is one."""
    files = [place] if place.is_file() else sorted(place.glob("*.pt"))
    return next((file for file in files if _header(file)[1] is not None), None)


def _header(file: Path) -> tuple[int, dict[str, Any] | None]:
    """The length of the first line, and the object in it where it is one of theirs."""
    with file.open("rb") as stream:
        if stream.peek(1)[:1] != b"{":
            return 0, None
        line = stream.readline(LONGEST)
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return 0, None
    ours = isinstance(header, dict) and ("schema" in header or "exp_factor" in header)
    return len(line), header if ours else None
