"""Cross-layer transcoders of circuit-tracer: two files for each of L layers, from 0 on, and a `config.yaml`.

W_enc_<l>.safetensors   W_enc_<l> [F, D]  b_enc_<l> [F]  b_dec_<l> [D]  threshold_<l> [F] or none (ReLU)
W_dec_<l>.safetensors   W_dec_<l> [F, L - l, D]: what layer l's latents write to it and to each later one
config.yaml             model_name, model_kind: cross_layer_transcoder, feature_input_hook, feature_output_hook, scan
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]  # its types are a package of their own
from safetensors.torch import save_file
from torch import Tensor

from sae_sweep.folder.files import replacing, write_text_atomic
from sae_sweep.interop._checked import checked, read_safetensors
from sae_sweep.saes.cross_layer import CrossLayerSae
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from sae_sweep.saes.forms.relu import ReluForm

KIND = "cross_layer_transcoder"
FIRST = "W_enc_0.safetensors"


def recognise(folder: Path) -> bool:
    """Whether it has the files of a first layer."""
    return (folder / FIRST).is_file()


def read(folder: Path) -> CrossLayerSae:
    """The transcoder of all layers. Raises ValueError where files are missing, damaged, or do not fit each other."""
    count = len(list(folder.glob("W_enc_*.safetensors")))
    found = [_layer(folder, layer) for layer in range(count)]
    first = found[0]["W_enc"]
    if first.dim() != 2 or count < 2:
        what = "one layer" if count < 2 else f"W_enc_0 of shape {tuple(first.shape)}"
        raise ValueError(f"{folder} has {what}: no cross-layer transcoder")
    (width, d), thresholds = first.shape, "threshold" in found[0]
    form = JumpReluForm() if thresholds else ReluForm()
    vectors = dict.fromkeys(form.vectors, (width,))
    made = []
    for layer, own in enumerate(found):
        shapes = {"W_enc": (width, d), "W_dec": (width, count - layer, d), "b_dec": (d,), **vectors}
        if own.keys() != shapes.keys():
            odd = sorted(own.keys() ^ shapes.keys())[0]
            raise ValueError(f"{folder} has {'a' if odd in own else 'no'} tensor {odd}_{layer}: not those of a {KIND}")
        made.append({name: checked(folder, f"{name}_{layer}", own[name], shape) for name, shape in shapes.items()})
    tensors = {name: torch.cat([own[name] for own in made]) for name in ("b_dec", *form.vectors)}
    tensors["W_enc"] = torch.cat([own["W_enc"] for own in made]).T.contiguous()
    tensors["W_dec"] = torch.cat([own["W_dec"].flatten(0, 1) for own in made])
    return CrossLayerSae(form, tensors, False, transcodes=True, layers=count)


def _layer(folder: Path, layer: int) -> dict[str, Tensor]:
    """The tensors of one layer, without its number."""
    found = {}
    for file in (folder / f"W_enc_{layer}.safetensors", folder / f"W_dec_{layer}.safetensors"):
        for name, tensor in read_safetensors(file).items():
            if not name.endswith(f"_{layer}"):
                raise ValueError(f"{file} has a tensor {name}: not those of layer {layer}")
            found[name.removesuffix(f"_{layer}")] = tensor
    if "W_enc" not in found:
        raise ValueError(f"{folder}: layer {layer} has no W_enc_{layer}")
    return found


def told(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Model and hooks of all layers, as far as config.yaml says them."""
    count = len(list(folder.glob("W_enc_*.safetensors")))
    found: dict[str, Any] = {}
    for key, own in (("feature_input_hook", "hook_names"), ("feature_output_hook", "hook_names_out")):
        if isinstance(config.get(key), str):
            found[own] = [f"blocks.{layer}.{config[key]}" for layer in range(count)]
            found[own.replace("names", "name")] = found[own][0]
    return found | ({"model_name": config["model_name"]} if isinstance(config.get("model_name"), str) else {})


def write(folder: Path, sae: CrossLayerSae, metadata: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Write one. Raises ValueError for a form that they have not, and for layers that are not those from 0 on."""
    if type(sae.form) not in (ReluForm, JumpReluForm):
        raise ValueError("circuit-tracer has cross-layer transcoders of ReLU or thresholds; take sae=batchtopk")
    ends = {
        way: _end(metadata.get(key), sae.layers) for way, key in (("input", "hook_names"), ("output", "hook_names_out"))
    }
    tables = sae.spaces.tables(sae.tensors["W_dec"])
    vectors = {"b_enc": "b_enc"} | ({"threshold": "threshold"} if "threshold" in sae.tensors else {})
    columns = {"W_enc": sae.tensors["W_enc"].T, "b_dec": sae.tensors["b_dec"]}
    columns |= {theirs: sae.tensors[own] for theirs, own in vectors.items()}
    for layer in range(sae.layers):
        encodes = {f"{name}_{layer}": tensor.chunk(sae.layers)[layer] for name, tensor in columns.items()}
        decodes = {f"W_dec_{layer}": tables[layer].unflatten(1, (sae.layers - layer, -1))}
        for file, tensors in ((f"W_enc_{layer}.safetensors", encodes), (f"W_dec_{layer}.safetensors", decodes)):
            saved = {
                name: each.to("cpu", dtype).clone(memory_format=torch.contiguous_format)
                for name, each in tensors.items()
            }
            with replacing(folder / file) as temporary:
                save_file(saved, temporary)
    config = {"model_name": metadata.get("model_name"), "model_kind": KIND, "scan": None}
    config |= {f"feature_{way}_hook": end for way, end in ends.items()}
    write_text_atomic(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))


def _end(hooks: Any, layers: int) -> str:
    """What the hooks of all layers have in common: a hook's name without its layer."""
    named: Sequence[str] = hooks if isinstance(hooks, list) else []
    ends = {str(hook).split(".", 2)[-1] for hook in named}
    if len(ends) != 1 or [str(hook).split(".", 2)[:2] for hook in named] != [["blocks", str(n)] for n in range(layers)]:
        raise ValueError(
            f"circuit-tracer numbers layers from 0 on, and this one is of {', '.join(map(str, named)) or 'no known'}"
            " hooks; train one with site.across=all, or from layer 0 on"
        )
    return ends.pop()
