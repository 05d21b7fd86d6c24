"""What `write` writes, name by name, and that nothing else is read back as if it were that."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_sweep.interop import load_sae, saelens
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from sae_sweep.saes.inference import InferenceSae
from tests.interop.trained import CONFIGS, WIDTH, D, K, raw_activations, trained_member
from tests.saes.kinds import FREE_DECODER, NO_PRE_BIAS

FILES = {"cfg.json", "sae_weights.safetensors", "sparsity.safetensors"}
PLAIN = {"W_enc": (D, WIDTH), "b_enc": (WIDTH,), "W_dec": (WIDTH, D), "b_dec": (D,)}
SHAPES = {
    "standard": PLAIN,
    "topk": PLAIN,
    "jumprelu": {**PLAIN, "threshold": (WIDTH,)},
    "gated": {
        **{key: PLAIN[key] for key in ("W_enc", "W_dec", "b_dec")},
        **dict.fromkeys(("b_gate", "b_mag", "r_mag"), (WIDTH,)),
    },
}
CONFIG_KEYS = {
    *("architecture", "d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "normalize_activations"),
    *("reshape_activations", "metadata"),
}
METADATA = {"hook_name": "blocks.3.hook_resid_post", "model_name": "small"}


def plain_jumprelu(dtype: torch.dtype = torch.float32) -> InferenceSae:
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(*shape, generator=generator).to(dtype) for name, shape in SHAPES["jumprelu"].items()}
    return InferenceSae(JumpReluForm(), tensors, subtract_b_dec=False)


SAES: dict[str, Callable[[], InferenceSae]] = {name: trained_member(name, 0).folded for name in CONFIGS}
each = pytest.mark.parametrize("name", SAES)


@pytest.fixture
def saved(name: str, tmp_path: Path) -> Path:
    saelens.write(tmp_path, SAES[name](), METADATA, torch.linspace(0, 1, WIDTH))
    return tmp_path


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "cfg.json").read_text())
    return config


@each
def test_files(saved: Path) -> None:
    """These three and no temporary one."""
    assert {file.name for file in saved.iterdir()} == FILES


@each
def test_tensors(saved: Path, name: str) -> None:
    """SAELens refuses a tensor too many or too few."""
    tensors = load_file(saved / "sae_weights.safetensors")
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == SHAPES[SAES[name]().form.saelens]
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all(tensor.is_contiguous() for tensor in tensors.values())


@each
def test_orientation(saved: Path, name: str) -> None:
    """x @ W_enc and f @ W_dec: W_enc's columns and W_dec's rows are the latents."""
    tensors, sae = load_file(saved / "sae_weights.safetensors"), SAES[name]()
    assert torch.equal(tensors["W_enc"], sae.tensors["W_enc"])
    assert torch.equal(tensors["W_dec"], sae.tensors["W_dec"])
    trained = trained_member(name, 0).parameters
    norm_F = trained["W_dec"].norm(dim=1, keepdim=True) if name in FREE_DECODER else 1
    in_encoder = 1 if name == "gated_decoder_norm" else norm_F  # whose r_mag takes the norm
    torch.testing.assert_close(tensors["W_enc"].T, trained["W_enc"] * in_encoder)
    torch.testing.assert_close(tensors["W_dec"], trained["W_dec"] / norm_F)


@each
def test_config(saved: Path, name: str) -> None:
    config = config_of(saved)
    architecture = SAES[name]().form.saelens
    assert set(config) == CONFIG_KEYS | ({"k", "rescale_acts_by_decoder_norm"} if architecture == "topk" else set())
    del config["metadata"]
    expected = {
        "architecture": architecture,
        "d_in": D,
        "d_sae": WIDTH,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": name not in NO_PRE_BIAS,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    if architecture == "topk":
        expected |= {"k": K, "rescale_acts_by_decoder_norm": False}
    assert config == expected
    assert type(config["apply_b_dec_to_input"]) is bool
    assert architecture != "topk" or type(config["k"]) is int


@each
def test_metadata(saved: Path) -> None:
    """Without a 6.x version SAELens takes the folder for one of an older layout."""
    metadata = config_of(saved)["metadata"]
    assert metadata["sae_lens_version"].startswith("6.")
    assert {key: metadata[key] for key in METADATA} == METADATA


@pytest.mark.parametrize(
    ("hook", "reshape"),
    [("blocks.0.attn.hook_z", "hook_z"), ("blocks.0.hook_mlp_out", "none"), ("blocks.0.hook_attn_out", "none")],
)
def test_attention_heads_are_flattened_by_saelens(tmp_path: Path, hook: str, reshape: str) -> None:
    saelens.write(tmp_path, plain_jumprelu(), {"hook_name": hook}, torch.zeros(WIDTH))
    assert config_of(tmp_path)["reshape_activations"] == reshape


@each
def test_sparsity(saved: Path) -> None:
    """A logarithm, not a rate; a latent that never fires is at -10."""
    tensors = load_file(saved / "sparsity.safetensors")
    assert set(tensors) == {"sparsity"}
    expected = torch.log10(torch.linspace(0, 1, WIDTH).double() + 1e-10).float()
    assert tensors["sparsity"].dtype == torch.float32
    assert torch.equal(tensors["sparsity"], expected)
    assert tensors["sparsity"][0] == -10.0


@each
def test_no_header(saved: Path) -> None:
    for file in ("sae_weights.safetensors", "sparsity.safetensors"):
        with safe_open(saved / file, framework="pt") as opened:
            assert not opened.metadata()


@each
def test_round_trip(saved: Path, name: str) -> None:
    """To the last bit: tensors, and so codes and reconstructions."""
    sae, again = SAES[name](), load_sae(saved)
    assert (again.form, again.subtract_b_dec) == (sae.form, sae.subtract_b_dec)
    assert set(again.tensors) == set(sae.tensors)
    assert all(torch.equal(again.tensors[key], tensor) for key, tensor in sae.tensors.items())
    x_BD = raw_activations(50, 1)
    assert torch.equal(again.encode(x_BD), sae.encode(x_BD))
    assert torch.equal(again.decode(again.encode(x_BD)), sae.decode(sae.encode(x_BD)))


def test_other_dtypes_and_strides_are_saved_as_float32(tmp_path: Path) -> None:
    sae = plain_jumprelu(torch.float64)
    sae.tensors["W_enc"] = sae.tensors["W_enc"].T.contiguous().T
    saelens.write(tmp_path, sae, METADATA, torch.zeros(WIDTH))
    again = load_sae(tmp_path)
    assert all(torch.equal(again.tensors[key], tensor.float()) for key, tensor in sae.tensors.items())


@each
def test_a_truncated_file_is_refused(saved: Path) -> None:
    weights = saved / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"sae_weights\.safetensors"):
        load_sae(saved)


@pytest.mark.parametrize("name", ["topk"])
@pytest.mark.parametrize("text", ["", "{", '{"architecture": "topk"'])
def test_a_damaged_config_is_refused(saved: Path, text: str) -> None:
    (saved / "cfg.json").write_text(text)
    with pytest.raises(ValueError, match=r"cfg\.json"):
        load_sae(saved)


@pytest.mark.parametrize("name", ["topk"])
@pytest.mark.parametrize("key", ["architecture", "d_in", "d_sae", "apply_b_dec_to_input", "k"])
def test_a_config_without_a_key_is_refused(saved: Path, key: str) -> None:
    config = config_of(saved)
    del config[key]
    (saved / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"cfg\.json.*{key}|{key}.*cfg\.json"):
        load_sae(saved)


def changed(folder: Path, tensors: dict[str, Tensor | None]) -> None:
    """The weights with these tensors put in, or taken out where None."""
    merged = {**load_file(folder / "sae_weights.safetensors"), **tensors}
    kept = {key: tensor.contiguous() for key, tensor in merged.items() if tensor is not None}
    save_file(kept, folder / "sae_weights.safetensors")


@each
def test_missing_and_unknown_tensors_are_refused(saved: Path) -> None:
    changes: list[dict[str, Tensor | None]] = [{"b_dec": None}, {"b_lookup": torch.zeros(3)}]
    for tensors in changes:
        before = (saved / "sae_weights.safetensors").read_bytes()
        changed(saved, tensors)
        with pytest.raises(ValueError, match=r"sae_weights\.safetensors"):
            load_sae(saved)
        (saved / "sae_weights.safetensors").write_bytes(before)


@each
def test_tensors_of_another_shape_are_refused(saved: Path, name: str) -> None:
    """Every one of them, also where arithmetic would broadcast it."""
    whole = load_file(saved / "sae_weights.safetensors")
    for key, tensor in whole.items():
        changed(saved, {**whole, key: tensor[:1]})
        with pytest.raises(ValueError, match=rf"sae_weights\.safetensors.*{key}"):
            load_sae(saved)


@pytest.mark.parametrize("name", ["topk"])
def test_a_folder_that_lacks_a_file_says_which(saved: Path) -> None:
    for file in ("cfg.json", "sae_weights.safetensors"):
        contents = (saved / file).read_bytes()
        (saved / file).unlink()
        with pytest.raises((FileNotFoundError, ValueError), match=file):
            saelens.read(saved)
        (saved / file).write_bytes(contents)
