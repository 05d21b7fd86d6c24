"""Files that are not what they should be: one line that names the file, and nothing of theirs is executed."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_sweep.interop import load_sae
from tests.interop.foreign import FORMATS, OURS, SPARSIFY, D, F, K, W, activations, checkpoint, legacy, openai, saelens

Tensors = dict[str, Any]
KINDS = (
    "AutoEncoder",
    "GatedAutoEncoder",
    "sparsify",
    "saelens standard",
    "gemma scope",
    "gemma scope 2",
    "openai",
    "circuit-tracer",
)
each = pytest.mark.parametrize("name", KINDS)


def weights_of(folder: Path) -> Path:
    return next(path for path in folder.iterdir() if path.suffix in (".pt", ".npz", ".safetensors"))


def changed(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    file = weights_of(folder)
    if file.suffix == ".pt":
        torch.save(change(torch.load(file)), file)
    elif file.suffix == ".npz":
        with np.load(file) as found:
            tensors = {name: torch.from_numpy(found[name]) for name in found.files}
        np.savez(file, **{name: tensor.numpy() for name, tensor in change(tensors).items()})
    else:
        save_file({name: tensor.contiguous() for name, tensor in change(load_file(file)).items()}, file)


def refused(folder: Path) -> str:
    with pytest.raises(ValueError) as raised:
        load_sae(folder)
    text = str(raised.value)
    assert "\n" not in text
    assert str(folder) in text
    return text


@pytest.fixture
def saved(name: str, tmp_path: Path) -> Path:
    FORMATS[name][0](tmp_path)
    return tmp_path


def a_matrix(tensors: Tensors) -> str:
    return next(name for name in ("encoder.weight", "W_enc", "w_enc") if name in tensors)


@each
def test_garbage_and_truncated_files(saved: Path) -> None:
    file = weights_of(saved)
    whole = file.read_bytes()
    for contents in (b"", b"\x80garbage", np.random.default_rng(0).bytes(5000), whole[:-100], whole[: len(whole) // 2]):
        file.write_bytes(contents)
        assert file.name in refused(saved)


@each
def test_a_transposed_matrix(saved: Path) -> None:
    changed(saved, lambda t: {**t, a_matrix(t): t[a_matrix(t)].T.clone()})
    assert "transposed" in refused(saved)


@each
def test_missing_and_left_over_tensors(saved: Path) -> None:
    changed(saved, lambda t: {**t, "more": torch.zeros(3)})
    assert "tensor more" in refused(saved)
    changed(saved, lambda t: {name: tensor for name, tensor in t.items() if name not in ("more", a_matrix(t))})
    assert "has no tensor" in refused(saved)


@each
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none(saved: Path, value: float) -> None:
    def broken(t: Tensors) -> Tensors:
        t[a_matrix(t)][1, 2] = value
        return t

    changed(saved, broken)
    assert "not finite" in refused(saved)


@each
def test_overflow_in_half_precision(saved: Path) -> None:
    changed(saved, lambda t: {**t, a_matrix(t): (1e6 * t[a_matrix(t)]).half()})
    assert "float16) has numbers that are not finite" in refused(saved)


@each
def test_whole_numbers_in_the_place_of_weights(saved: Path) -> None:
    changed(saved, lambda t: {**t, a_matrix(t): t[a_matrix(t)].to(torch.int32)})
    assert "int32" in refused(saved)


@each
def test_a_vector_where_a_matrix_belongs(saved: Path) -> None:
    changed(saved, lambda t: {**t, a_matrix(t): t[a_matrix(t)].flatten()})
    refused(saved)


@pytest.mark.parametrize("name", ["saelens standard", "gemma scope"])
def test_a_square_matrix_that_is_transposed(name: str, tmp_path: Path) -> None:
    """Shapes say nothing where there are as many latents as dimensions: directions do."""
    rows = torch.randn(D, D, generator=torch.Generator().manual_seed(1))
    square: dict[str, Tensor] = {"W_enc": rows.T.contiguous(), "W_dec": rows, "b_enc": torch.zeros(D)}
    square["b_dec"] = torch.zeros(D)
    for W_enc, whole in ((square["W_enc"], True), (rows.clone(), False)):
        tensors = {**square, "W_enc": W_enc}
        if name == "saelens standard":
            saelens(tmp_path, "standard", tensors, d_sae=D)
        else:
            np.savez(tmp_path / "params.npz", **{key: t.numpy() for key, t in tensors.items()}, threshold=np.ones(D))
        assert load_sae(tmp_path).width == D if whole else "transposed" in refused(tmp_path)


class Evil:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return (_touch, (str(self.file),))


def _touch(file: str) -> None:
    Path(file).touch()


@pytest.mark.parametrize("name", ["AutoEncoder", "openai", "gemma scope"])
def test_a_pickle_is_not_executed(saved: Path) -> None:
    mark, file = saved.parent / "executed", weights_of(saved)
    if file.suffix == ".npz":
        np.savez(file, W_enc=np.array([Evil(mark)], dtype=object))
    else:
        changed(saved, lambda t: {**t, "more": Evil(mark)})
    refused(saved)
    file.write_bytes(pickle.dumps(Evil(mark)))
    refused(saved)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"normalize_activations": "layer_norm"}, "layer_norm changes each token"),
        ({"normalize_activations": "constant_norm_rescale"}, "constant_norm_rescale changes each token"),
        ({"normalize_activations": "expected_average_only_in"}, "activation_scaler.json"),
        ({"architecture": "temporal"}, "temporal is not one of"),
        ({"architecture": "topk", "k": 0}, "k=0"),
        ({"architecture": "topk", "k": "7"}, "k=7"),
        ({"architecture": "topk", "k": F + 1}, f"k={F + 1} is more than its {F} latents"),
        ({"d_in": D + 1}, "W_... is"),
        ({"d_in": None}, "d_in"),
        ({"d_sae": True}, "d_sae"),
    ],
)
def test_what_saelens_says_of_it(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    saelens(tmp_path, config.pop("architecture", "standard"), OURS, **config)
    with pytest.raises(ValueError, match=said):
        load_sae(tmp_path)


@pytest.mark.parametrize("scaler", [{}, {"scaling_factor": None}, {"scaling_factor": "3"}, {"scaling_factor": 0}])
def test_a_checkpoint_whose_scale_is_not_known(scaler: dict[str, Any], tmp_path: Path) -> None:
    checkpoint(tmp_path, scaler)
    assert "scaling_factor" in refused(tmp_path)


def test_whitened_activations(tmp_path: Path) -> None:
    checkpoint(tmp_path, {"scaling_factor": 2.0, "has_whitening": True})
    assert "whitened" in refused(tmp_path)


def test_a_legacy_activation_that_is_not_known(tmp_path: Path) -> None:
    legacy(tmp_path, OURS, activation_fn_str="tanh-relu")
    assert "tanh-relu" in refused(tmp_path)


def test_a_layer_norm_that_weights_cannot_have_in_them(tmp_path: Path) -> None:
    """Their loader normalises each token where the activation is TopK."""
    openai(tmp_path, activation="TopK", activation_state_dict={"k": K, "postact_fn": "ReLU"})
    assert "LayerNorm" in refused(tmp_path)


def test_a_backup_of_training(tmp_path: Path) -> None:
    FORMATS["AutoEncoder"][0](tmp_path)
    torch.save({"step": 3, "ae": {"bias": W.b_D}, "norm_factor": 2.0}, tmp_path / "ae.pt")
    assert "backup" in refused(tmp_path)


def test_a_class_that_is_not_known(tmp_path: Path) -> None:
    FORMATS["AutoEncoder"][0](tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "CrossCoder"}}))
    assert "CrossCoder is not one of AutoEncoder," in refused(tmp_path)


def test_an_activation_of_sparsify_that_is_not_topk(tmp_path: Path) -> None:
    FORMATS["sparsify"][0](tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, "activation": "groupmax"}))
    assert "groupmax" in refused(tmp_path)


def test_configs_beside_weights(tmp_path: Path) -> None:
    save_file(SPARSIFY, tmp_path / "sae.safetensors")
    assert "cfg.json is missing" in refused(tmp_path)
    for text in ("", "[]", "{", "\x00", "[" * 100_000):
        (tmp_path / "cfg.json").write_text(text)
        assert "cfg.json" in refused(tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere")


def test_sparsify_is_not_taken_for_saelens(tmp_path: Path) -> None:
    FORMATS["sparsify"][0](tmp_path)
    assert load_sae(tmp_path).encode(activations(3)).shape == (3, F)
