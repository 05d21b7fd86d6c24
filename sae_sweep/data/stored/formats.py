"""Files of stored activations: safetensors, numpy's, parquet, arrow, datasets saved to disk, and saev's shards.

What can be is mapped into memory, so a file may be larger than that. Nothing that could run code is loaded.
"""

import json
from collections.abc import Callable, Iterator
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from sae_sweep.data.origin import Origin, check_glob, check_regular, once, walked
from sae_sweep.data.stored.shard import FIELD, Array, Arrays, Bfloat16, Shard, shard
from sae_sweep.errors import ConfigError, one_line

SUFFIXES = (".safetensors", ".npy", ".npz", ".parquet", ".arrow")
SAEV = "metadata.json"
_SAEV_SHARDS = "acts*.bin"
_SAFETENSORS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
GROUPS_HELD = 4
"""Of the row groups of parquet files, which are unpacked whole."""


def stored_files(origin: Origin) -> list[Path]:
    """The files under a path, glob or list of them, by name, each once. Raises ConfigError where there is none."""
    given = origin.path if isinstance(origin.path, list) else [origin.path]
    found: list[Path] = []
    for one in given:
        path = Path(str(one)).expanduser()
        if path.is_dir():
            inside = walked(path, origin.label)
            known = [file for file in inside if file.suffix in SUFFIXES or file.match(_SAEV_SHARDS)]
            found += sorted(known)
        elif path.exists():
            check_regular(path, origin.label)
            found.append(path)
        else:
            check_glob(str(path), origin.label)
            found += sorted(file for file in Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    if not found:
        kinds = ", ".join(SUFFIXES)
        raise ConfigError(f"{origin.label}: no file of activations there ({kinds}, or a folder of saev's shards)")
    return once(found)


def shards(origin: Origin) -> list[Shard]:
    """The shards of all files, in order. Raises ConfigError for a file that cannot be read as activations."""
    found: list[Shard] = []
    for file in stored_files(origin):
        if file.suffix not in _OPENED and not (file.parent / SAEV).is_file():
            raise ConfigError(f"{origin.label}: {file} has none of the suffixes {', '.join(SUFFIXES)}")
        try:
            found += _OPENED.get(file.suffix, _saev)(file, origin.field)
        except ConfigError:
            raise
        except Exception as error:  # numpy, pyarrow and safetensors raise types of their own for a damaged file
            raise ConfigError(f"{origin.label}: {file} cannot be read: {one_line(error)}") from error
    if not found or not all(one.shape[-1] for one in found):
        raise ConfigError(f"{origin.label}: there is no activation in its files")
    return found


def _safetensors(file: Path, field: str) -> Iterator[Shard]:
    with safe_open(file, framework="numpy"):
        pass  # its header is as it must be
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
    arrays: dict[str, Array | Bfloat16] = {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        offset, shape = 8 + size + about["data_offsets"][0], tuple(about["shape"])
        array = np.memmap(file, _SAFETENSORS[about["dtype"]], "r", offset, shape)
        arrays[name] = Bfloat16(array) if about["dtype"] == "BF16" else array
    yield shard(str(file), lambda: arrays, field)


def _npy(file: Path, field: str) -> Iterator[Shard]:
    arrays = {FIELD: np.load(file, mmap_mode="r", allow_pickle=False)}
    yield shard(str(file), lambda: arrays, FIELD)


def _npz(file: Path, field: str) -> Iterator[Shard]:
    @cache
    def load() -> Arrays:
        with np.load(file, allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}

    yield shard(str(file), load, field)


def _saev(file: Path, field: str) -> Iterator[Shard]:
    """A shard [examples, layers, tokens, D] float32, which `metadata.json` beside it says; `field` is the layer."""
    about = json.loads((file.parent / SAEV).read_text(encoding="utf-8"))
    layers = [str(layer) for layer in about["layers"]]
    if field == FIELD and len(layers) == 1:
        field = layers[0]
    if field not in layers:
        raise ConfigError(f"data.field={field}: {file.parent} has the layers {', '.join(layers)}; name one of them")
    named = ("content_tokens_per_example", "patches_per_ex", "n_patches_per_img")
    tokens = next(about[name] for name in named if name in about) + bool(about["cls_token"])
    d = about.get("d_model") or about["d_vit"]
    array = np.memmap(file, "<f4", "r")
    each = len(layers) * tokens * d
    arrays = {FIELD: array[: len(array) // each * each].reshape(-1, len(layers), tokens, d)[:, layers.index(field)]}
    yield shard(str(file), lambda: arrays, FIELD)


def _arrow(file: Path, field: str) -> Iterator[Shard]:
    """A shard for each batch of records, which stays where it is on disk."""
    import pyarrow as pa

    mapped = pa.memory_map(str(file))
    try:
        opened = pa.ipc.open_stream(mapped)
        batches = list(opened)
    except pa.ArrowInvalid:
        opened = pa.ipc.open_file(mapped)
        batches = [opened.get_batch(index) for index in range(opened.num_record_batches)]
    for batch in batches:
        if len(batch):
            yield shard(str(file), cache(partial(_columns, batch)), field)


def _parquet(file: Path, field: str) -> Iterator[Shard]:
    """A shard for each group of rows."""
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(file)
    for group in range(opened.num_row_groups):
        if opened.metadata.row_group(group).num_rows:
            yield shard(str(file), partial(_row_group, str(file), group), field)


@lru_cache(maxsize=GROUPS_HELD)
def _row_group(file: str, group: int) -> Arrays:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file).read_row_group(group).combine_chunks()
    return _columns(table.to_batches()[0])


def _columns(batch: Any) -> Arrays:
    """The columns of numbers, of as many dimensions as their lists are deep."""
    found = {name: _numbers(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    return {name: array for name, array in found.items() if array is not None}


def _numbers(column: Any) -> Array | None:
    """A column of lists, all of one length, as an array; None for anything else."""
    import pyarrow as pa
    import pyarrow.compute as pc

    shape = [len(column)]
    while True:
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or _fixed(column.type):
            lengths = pc.unique(pc.list_value_length(column)).to_pylist()
            if len(lengths) != 1 or lengths[0] is None:
                return None
            shape.append(lengths[0])
            column = column.flatten()
        else:
            break
    plain = pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)
    if not plain or column.null_count:
        return None
    array: Array = column.to_numpy(zero_copy_only=False).reshape(shape)
    return array


def _fixed(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_list(kind))


_OPENED: dict[str, Callable[[Path, str], Iterator[Shard]]] = {
    ".safetensors": _safetensors,
    ".npy": _npy,
    ".npz": _npz,
    ".arrow": _arrow,
    ".parquet": _parquet,
}
