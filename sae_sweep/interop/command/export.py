"""`sae-sweep export MEMBER --format F --out DIR [--dtype T]`: an SAE in the layout that another program reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sae_sweep.config.command_line import one_option, split_options
from sae_sweep.errors import ConfigError
from sae_sweep.folder import names
from sae_sweep.interop import FORMATS, load_sae, told
from sae_sweep.interop._checked import check_keys, read_safetensors
from sae_sweep.interop.command.hub import located

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export(arguments: Sequence[str]) -> None:
    """Do what the command line says, and say what was written. Raises ConfigError."""
    words, options = split_options("export", arguments, ("format", "out", "dtype"))
    if len(words) != 1:
        raise ConfigError("export: takes one folder, as in `sae-sweep export outputs/demo/MEMBER --format saelens`")
    named, out = one_option("export", options, "format"), Path(one_option("export", options, "out")).expanduser()
    dtype = one_option("export", options, "dtype", "float32")
    if dtype not in DTYPES:
        raise ConfigError(f"export: --dtype={dtype} is not one of {', '.join(DTYPES)}")
    export_sae(located(words[0]), writer(named), out, DTYPES[dtype])
    print(f"sae-sweep: {words[0]} is in {out}, for {named}")


def writer(named: str) -> ModuleType:
    """The format of a name, `_` or `-` between its words. Raises ConfigError where it is not one that is written."""
    written = [name for name, kind in FORMATS.items() if hasattr(kind, "write")]
    if named.replace("-", "_") not in written:
        raise ConfigError(f"export: --format={named} is not one of {', '.join(written)}")
    return FORMATS[named.replace("-", "_")]


def check_empty(command: str, out: Path) -> None:
    """Raises ConfigError where a folder to write has something in it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{command}: --out={out} is there already; give a folder that is not, or is empty")


def export_sae(folder: Path, kind: ModuleType, out: Path, dtype: torch.dtype) -> None:
    """Write the SAE of a folder into another one, which has no files yet. Raises ConfigError where it cannot be read,
    where the format has none such, and where numbers are too large for the dtype; then nothing is left behind."""
    check_empty("export", out)
    try:
        sae, metadata = load_sae(folder), card_metadata(folder)
        for name, tensor in sae.tensors.items():
            if not tensor.to(dtype).isfinite().all():
                raise ValueError(f"{name} of {folder} has numbers too large for {dtype}; give --dtype bfloat16")
        made = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
        try:
            kind.write(out, sae, metadata, _frequency(folder), dtype)
        finally:
            if made and not any(out.iterdir()):
                out.rmdir()
    except ValueError as error:
        raise ConfigError(f"export: {error}") from error
    except OSError as error:
        raise ConfigError(f"export: {error.filename}: {error.strerror}") from error


def card_metadata(folder: Path) -> dict[str, Any]:
    """What files say of how the SAE came to be, with the metrics of metrics.json under `metrics`. Raises ValueError
    where no format has it."""
    metrics = _json(folder / names.METRICS)
    return told(folder) | ({"metrics": metrics} if metrics else {})


def _json(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _frequency(folder: Path) -> Tensor | None:
    """[F]: the share of tokens each latent fires on; None where no file says it. ValueError for a damaged one."""
    file = folder / names.SPARSITY
    if not file.is_file():
        return None
    found = read_safetensors(file)
    check_keys(file, found, ("sparsity",))
    return (10 ** found["sparsity"].double() - 1e-10).clamp(min=0)
