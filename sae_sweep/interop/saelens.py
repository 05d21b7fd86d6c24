"""Saved members in SAELens's layout: `cfg.json`, `sae_weights.safetensors`, `sparsity.safetensors`.

Scaling is folded in, so a folder loads with `SAE.load_from_disk(folder)` and works on raw activations. Unknown keys
of cfg.json are ignored by its loader, unknown tensors are fatal, and without a 6.x `sae_lens_version` it takes the
folder for a legacy one; hence the exact set of names below.

A crosscoder is of no architecture of SAELens: cfg.json calls it one, says how it fires and how many sites lie end to
end in its inputs, and `read` reads it. So is a cross-layer transcoder, of which it says how many layers there are; of
its decoder a row is what one latent writes to one layer, by latent, and of each by layer.

Each form says what SAELens calls it (`saes/forms/`). A TopK transcoder is of no architecture that it has, so only
`read` reads it. What SAELens itself wrote, now or long ago, finished or in training, is first made into this layout
(`_saelens_layouts.py`).
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sae_sweep.folder.files import replacing, write_json_atomic
from sae_sweep.folder.names import CARD, LOOKUP, SPARSITY, WEIGHTS
from sae_sweep.host.kinds import Kinds
from sae_sweep.interop._checked import check_keys, checked, checked_sae, integer, read_json, read_safetensors
from sae_sweep.interop._saelens_layouts import inference_layout
from sae_sweep.saes.cross_layer import CrossLayerSae
from sae_sweep.saes.form import InferenceForm
from sae_sweep.saes.inference import InferenceSae, Lookup

FORMAT_VERSION = "6.54.12"
"""The sae-lens release whose inference layout this is."""
CROSSCODER, CROSS_LAYER = "crosscoder", "cross_layer_transcoder"
OLDER = {
    **dict.fromkeys(("hook_point", "hook_name"), "hook_name"),
    **{name: name for name in ("model_name", "context_size", "dataset_path", "prepend_bos", "training_tokens")},
}
"""What cfg.json said of it before there was metadata, by the names that metadata has."""
FORMS = Kinds("sae_sweep.saes.forms", "sae_sweep.forms")
"""Every inference form, those of other packages included."""


def recognise(folder: Path) -> bool:
    """Whether a folder holds an SAE of this format: sparsify has a cfg.json too, and other weights."""
    return (folder / CARD).is_file() and (folder / WEIGHTS).is_file()


def write(
    folder: Path,
    sae: InferenceSae,
    metadata: Mapping[str, Any],
    frequency_F: Tensor | None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write one member; each file appears whole or not at all, weights last.

    `frequency_F` is the share of tokens each latent fires on, None where nobody has counted; SAELens keeps
    log10(frequency + 1e-10).
    """
    tensors = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in sae.tensors.items()}
    config = saelens_config(sae, metadata) | {"dtype": str(dtype).removeprefix("torch.")}
    write_json_atomic(folder / CARD, config)
    files = {WEIGHTS: tensors}
    if frequency_F is not None:
        sparsity_F = torch.log10(frequency_F.double() + 1e-10).float().cpu().contiguous()
        files = {SPARSITY: {"sparsity": sparsity_F}, **files}
    if sae.lookup is not None:
        files = {LOOKUP: {"lookup": sae.lookup.rows_VD.float().cpu().contiguous()}, **files}
    for name, contents in files.items():
        with replacing(folder / name) as temporary:
            save_file(contents, temporary)


def saelens_config(sae: InferenceSae, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of cfg.json."""
    config: dict[str, Any] = {
        "architecture": _architecture(sae),
        "d_in": sae.d,
        "d_sae": sae.width,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_b_dec,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if str(metadata.get("hook_name")).endswith("hook_z") else "none",
        "metadata": {**metadata, "sae_lens_version": FORMAT_VERSION},
    }
    config |= {**asdict(sae.form), **sae.form.saelens_keys}
    if sae.transcodes:
        config["d_out"] = sae.d_out
    if sae.sites > 1:
        config |= {"activation": sae.form.saelens, "sites": sae.sites}
    if isinstance(sae, CrossLayerSae):
        config |= {"activation": sae.form.saelens, "layers": sae.layers}
    if sae.lookup is not None:
        config["lookup"] = {"file": LOOKUP, "rows": len(sae.lookup.rows_VD), "subtract": sae.lookup.subtract}
    return config


def check_theirs(sae: InferenceSae) -> None:
    """Raises ValueError for what only `read` reads: SAELens has no such architecture."""
    named = _architecture(sae)
    if named in (CROSSCODER, CROSS_LAYER) or named.startswith("topk_") or sae.lookup is not None:
        what = f"{named} with a lookup table" if sae.lookup is not None else named
        raise ValueError(f"SAELens has no architecture for it ({what}); --format saelens is what we read ourselves")


def _architecture(sae: InferenceSae) -> str:
    """What cfg.json calls it."""
    if isinstance(sae, CrossLayerSae):
        return CROSS_LAYER
    if sae.sites > 1:
        return CROSSCODER
    if not sae.transcodes:
        return sae.form.saelens
    name = sae.form.saelens_transcoder
    return name.replace("transcoder", "skip_transcoder") if "W_skip" in sae.tensors else name


def read(folder: Path) -> InferenceSae:
    """Read what `write` or SAELens wrote. Raises ValueError when a file is damaged or is not what it should be."""
    file, weights = folder / CARD, folder / WEIGHTS
    config, tensors = inference_layout(folder, read_json(file), read_safetensors(weights))
    check_keys(file, config, ("architecture", "apply_b_dec_to_input"))
    if config["architecture"] == CROSS_LAYER:
        return _cross_layer(file, weights, config, tensors)
    if config["architecture"] == CROSSCODER:
        check_keys(file, config, ("activation", "sites"))
    named = str(config["activation"] if config["architecture"] == CROSSCODER else config["architecture"])
    form = _form(file, named.replace("skip_", ""), config)
    d, width = integer(file, config, "d_in"), integer(file, config, "d_sae")
    d_out = integer(file, config, "d_out") if "d_out" in config else d
    return checked_sae(
        weights,
        form,
        tensors,
        subtract_b_dec=bool(config["apply_b_dec_to_input"]),
        transcodes="transcoder" in named,
        sites=config.get("sites", 1),
        lookup=_lookup(folder, config.get("lookup"), d),
        shapes=form.shapes(d, width, d_out) | ({"W_skip": (d_out, d)} if "skip_" in named else {}),
    )


def _cross_layer(file: Path, weights: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> CrossLayerSae:
    check_keys(file, config, ("activation",))
    form = _form(file, str(config["activation"]), config)
    layers, width = integer(file, config, "layers"), integer(file, config, "d_sae")
    d, d_out = integer(file, config, "d_in"), integer(file, config, "d_out")
    for key, number in (("d_sae", width), ("d_in", d), ("d_out", d_out)):
        if layers < 2 or number % layers:
            raise ValueError(f"{file}: {key} is {number}, which {layers} layers cannot share")
    shapes = form.shapes(d // layers, width, d_out)
    shapes["W_dec"] = (width * (layers + 1) // 2, d_out // layers)
    made = {name: checked(weights, name, tensors[name], shape) for name, shape in shapes.items() if name in tensors}
    for name in sorted(set(tensors) ^ set(shapes)):
        raise ValueError(f"{weights} has {'no' if name in shapes else 'a'} tensor {name}: not those of {CROSS_LAYER}")
    return CrossLayerSae(form, made, False, transcodes=True, layers=layers)


def told(folder: Path) -> dict[str, Any]:
    """What cfg.json says of how the SAE came to be; older ones say it beside what the SAE is."""
    config = read_json(folder / CARD)
    metadata = config.get("metadata")
    older = {own: config[older] for older, own in OLDER.items() if older in config}
    return older | (metadata if isinstance(metadata, dict) else {})


def _form(file: Path, named: str, config: Mapping[str, Any]) -> InferenceForm:
    """The form of that name, with what cfg.json says of it."""
    kinds = [kind.Form for kind in FORMS.values()]
    form = next((own for own in kinds if named in (own.saelens, own.saelens_transcoder)), None)
    if form is None:
        raise ValueError(f"{file}: {named} is not one of {', '.join(own.saelens for own in kinds)}")
    keys = [field.name for field in fields(form)]
    check_keys(file, config, keys)
    made: InferenceForm = form(**{key: config[key] for key in keys})
    return made


def _lookup(folder: Path, entry: Any, d: int) -> Lookup | None:
    if entry is None:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("rows"), int) or "subtract" not in entry:
        raise ValueError(f"{folder / CARD}: lookup does not say its rows, or whether it is subtracted")
    file, tensors = folder / LOOKUP, read_safetensors(folder / LOOKUP)
    if set(tensors) != {"lookup"}:
        raise ValueError(f"{file} holds {', '.join(sorted(tensors))}: not the tensors of a tokenized SAE")
    return Lookup(checked(file, "lookup", tensors["lookup"], (entry["rows"], d)), bool(entry["subtract"]))
