"""Stored activations: what each format gives, row by row, and what is refused."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Array2D, Dataset, Features, Sequence, Value
from safetensors.torch import save_file

from sae_sweep.config.files import config_of
from sae_sweep.config.schema import DataConfig
from sae_sweep.data.stored.rows import StoredData, open_stored
from sae_sweep.errors import ConfigError

R, T, D = 9, 4, 3
X = np.arange(R * T * D, dtype=np.float32).reshape(R, T, D)
TOKENS = np.arange(R * T, dtype=np.int32).reshape(R, T)
COUNTED = (TOKENS % 5 != 0).astype(np.int8)
Write = Callable[[Path], str | None]


def config(path: Any, **changed: Any) -> DataConfig:
    made = config_of({"data": "activations", "data.path": "x", "data.context": T, "data.block_rows": 2}).data
    return replace(made, path=str(path) if isinstance(path, Path) else path, **changed)


def read(data: StoredData) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """All rows of the training source."""
    rows = data.training.read(np.arange(len(data.training), dtype=np.int32))
    return rows.activations_RTD.float().numpy(), rows.tokens_RT.numpy(), rows.counted_RT.numpy()


def safetensors_of(dtype: torch.dtype) -> Write:
    def write(folder: Path) -> None:
        tensors = {"activations": torch.from_numpy(X).to(dtype), "tokens": torch.from_numpy(TOKENS)}
        tensors["mask"] = torch.from_numpy(COUNTED)
        save_file({name: each[:5].contiguous() for name, each in tensors.items()}, folder / "0.safetensors")
        save_file({name: each[5:].contiguous() for name, each in tensors.items()}, folder / "1.safetensors")

    return write


def npy(folder: Path) -> None:
    np.save(folder / "a.npy", X)


def flat(folder: Path) -> None:
    np.save(folder / "a.npy", X.reshape(-1, D))


def npz(folder: Path) -> None:
    np.savez(folder / "a.npz", anything=X, token_ids=TOKENS, counted=COUNTED)


def parquet(folder: Path) -> None:
    table = pa.table({"activations": list(X.tolist()), "input_ids": list(TOKENS.tolist())})
    pq.write_table(table, folder / "a.parquet", row_group_size=4)


def dataset(folder: Path) -> None:
    """As SAELens caches them: a column named by the hook, and the token ids."""
    features = Features({"hook_z": Array2D((T, D), "float32"), "token_ids": Sequence(Value("int32"), T)})
    Dataset.from_dict({"hook_z": X, "token_ids": TOKENS}, features).save_to_disk(folder)


def saev(folder: Path) -> None:
    about = {"layers": [7], "d_model": D, "cls_token": True, "content_tokens_per_example": T - 1}
    (folder / "metadata.json").write_text(json.dumps(about))
    X[:5].tofile(folder / "acts000000.bin")
    X[5:].tofile(folder / "acts000001.bin")


def saev_of_two_layers(folder: Path) -> str:
    about = {"layers": [3, 7], "d_vit": D, "cls_token": False, "patches_per_ex": T}
    (folder / "metadata.json").write_text(json.dumps(about))
    np.stack([X + 1000, X], axis=1).tofile(folder / "acts000000.bin")
    return "7"


@pytest.mark.parametrize(
    ("write", "beside"),
    [
        (safetensors_of(torch.float32), {"tokens", "counted"}),
        (safetensors_of(torch.bfloat16), {"tokens", "counted"}),
        (safetensors_of(torch.float16), {"tokens", "counted"}),
        (npy, set()),
        (flat, set()),
        (npz, {"tokens", "counted"}),
        (parquet, {"tokens"}),
        (dataset, {"tokens"}),
        (saev, set()),
        (saev_of_two_layers, set()),
    ],
)
def test_every_format_gives_the_same_rows(write: Write, beside: set[str], tmp_path: Path) -> None:
    """All numbers are small integers, which half precision holds exactly."""
    field = write(tmp_path) or "activations"
    x_RTD, tokens_RT, counted_RT = read(open_stored(config(tmp_path, field=field), 8))
    assert (x_RTD == X).all()
    assert (tokens_RT == (TOKENS if "tokens" in beside else 0)).all()
    assert (counted_RT == (COUNTED if "counted" in beside else 1)).all()


def test_rows_are_cut_within_a_file_only_and_the_rest_is_dropped(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X.reshape(-1, D)[:10])
    np.save(tmp_path / "b.npy", X.reshape(-1, D)[10:])
    data = open_stored(config(tmp_path), 4)
    x_RTD, _, _ = read(data)
    assert x_RTD.reshape(-1, D).tolist() == [*X.reshape(-1, D)[:8].tolist(), *X.reshape(-1, D)[10:34].tolist()]
    assert data.training.dropped == 4
    assert data.account(7) == "data: 4 activations held out, 56 read to train on (2 times over 28), 4 dropped"


def test_the_first_rows_are_held_out_and_never_trained_on(tmp_path: Path) -> None:
    npy(tmp_path)
    data = open_stored(config(tmp_path), 9)
    seen = {int(n) for index in range(9) for n in data.order.block(index)[0][:, 0]}
    assert (data.heldout_rows, seen) == (3, set(range(3, R)))


def test_a_source_of_its_own_is_held_out(tmp_path: Path) -> None:
    npy(tmp_path)
    np.save(tmp_path / "heldout.npy", X + 0.5)
    data = open_stored(config(tmp_path / "a.npy", heldout_path=str(tmp_path / "heldout.npy")), 8)
    assert (data.heldout(1, 2).activations_RTD.numpy() == X[1:2] + 0.5).all()
    assert data.order.rows_per_epoch == R


def test_paths_lists_and_globs(tmp_path: Path) -> None:
    safetensors_of(torch.float32)(tmp_path)
    whole = [str(tmp_path), f"{tmp_path}/*.safetensors", [f"{tmp_path}/0.safetensors", f"{tmp_path}/1.safetensors"]]
    assert [len(open_stored(config(path), 4).training) for path in whole] == [R, R, R]


def broken(name: str, content: bytes) -> Write:
    return lambda folder: (folder / name).write_bytes(content) and None


def arrays(name: str, **found: npt.NDArray[Any]) -> Write:
    return lambda folder: np.savez(folder / name, **found)  # type: ignore[func-returns-value,arg-type]


def saev_of(metadata: bytes) -> Write:
    def write(folder: Path) -> None:
        (folder / "metadata.json").write_bytes(metadata)
        np.zeros(24, np.float32).tofile(folder / "acts000000.bin")

    return write


@pytest.mark.parametrize(
    ("write", "changed", "told"),
    [
        (npy, {"context": 3}, "has rows of 4 positions; take data.context=4"),
        (npy, {"field": "layer"}, None),
        (npz, {"field": "other"}, "data.field=other is no array"),
        (arrays("a.npz", a=X, b=X), {}, "which has a [9, 4, 3] float32, b [9, 4, 3] float32"),
        (arrays("a.npz", a=TOKENS), {}, "which has a [9, 4] int32"),
        (arrays("a.npz", a=X, mask=TOKENS[:, :2]), {}, "mask has shape [9, 2], and its activations [9, 4, 3]"),
        (broken("a.npy", b"junk"), {}, "cannot be read"),
        (broken("a.npz", b"junk"), {}, "cannot be read"),
        (broken("a.safetensors", b"junkjunkjunk"), {}, "cannot be read"),
        (broken("a.safetensors", b"\x02" + bytes(7) + b"[]" + bytes(9)), {}, "cannot be read"),
        (broken("a.parquet", b"junk"), {}, "cannot be read"),
        (broken("a.arrow", b"junk"), {}, "cannot be read"),
        (lambda folder: None, {}, "no file of activations there"),
        (
            lambda folder: pq.write_table(pa.table({"x": pa.array([], pa.list_(pa.float32()))}), folder / "a.parquet"),
            {},
            "there is no activation in its files",
        ),
        (lambda folder: np.save(folder / "a.npy", X[:1]), {}, "too few to train and to judge on"),
        (lambda folder: np.save(folder / "a.npy", np.array([{}], dtype=object)), {}, "cannot be read"),
        (lambda folder: np.save(folder / "a.npy", X[..., :0]), {}, "there is no activation in its files"),
        (saev_of(b"[1]"), {}, "cannot be read"),
        (saev_of(b'{"layers": [1], "cls_token": 0}'), {}, "cannot be read"),
        (saev_of(b'{"layers": [1], "cls_token": 0, "n_patches_per_img": 0, "d_vit": 0}'), {}, "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    write: Write, changed: dict[str, Any], told: str | None, tmp_path: Path
) -> None:
    write(tmp_path)
    if told is None:  # a .npy file has one array, which has no name
        assert len(open_stored(config(tmp_path, **changed), 8).training) == R
        return
    with pytest.raises(ConfigError) as refused:
        open_stored(config(tmp_path, **changed), 8)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """Before anybody waits for what comes out of it."""
    os.mkfifo(tmp_path / "a.arrow")
    with pytest.raises(ConfigError, match="is a pipe or a device, which cannot be read again"):
        open_stored(config(tmp_path / "a.arrow"), 8)


def test_files_of_two_widths_are_refused(tmp_path: Path) -> None:
    npy(tmp_path)
    np.save(tmp_path / "b.npy", X[:, :, :2])
    with pytest.raises(ConfigError, match=r"differ in how many numbers an activation has: 3 .*a\.npy.*, 2 .*b\.npy"):
        open_stored(config(tmp_path), 8)


def test_a_file_by_two_names_is_read_once_and_never_held_out_too(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X[:5])
    np.save(tmp_path / "b.npy", X[5:])
    twice = [str(tmp_path / "a.npy"), str(tmp_path / "*.npy")]
    data = open_stored(config(twice), T)
    np.testing.assert_array_equal(read(data)[0], X)
    with pytest.raises(ConfigError, match=r"data\.heldout_path=.* names files of data\.path too, such as .*b\.npy"):
        open_stored(config(tmp_path, heldout_path=str(tmp_path / "b.npy")), T)
