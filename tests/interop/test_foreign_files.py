"""Files that leave something unsaid give here what their own program gives, once it is said; else it is asked for."""

import contextlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_sweep.interop import NOTHING, Given, format_of, load_sae, told
from tests.interop.foreign import OURS, D, F, K, W, activations, circuit_tracer, npz, second_scope
from tests.interop.foreign_files import FORMATS, TABLE, TURNED, UNBIASED, bussmann, plain, saev, tokenized
from tests.interop.test_hostile_files import Evil


@pytest.mark.parametrize("name", FORMATS)
def test_codes_and_reconstructions(name: str, tmp_path: Path) -> None:
    save, answers, given = FORMATS[name]
    save(tmp_path)
    sae, x_BD = load_sae(tmp_path, given=given), activations()
    f_BF, x_hat_BD = answers(x_BD)
    tokens_B = None
    if name.startswith("tokenized"):
        tokens_B = torch.arange(len(x_BD)) % len(TABLE)
        x_hat_BD = x_hat_BD + TABLE[tokens_B]
    assert 0 < (f_BF > 0).double().mean() < 0.9
    own_BF = sae.encode(x_BD, tokens_B)
    torch.testing.assert_close(own_BF, f_BF, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae.decode(own_BF, tokens_B, x_BD), x_hat_BD, rtol=1e-5, atol=1e-5)
    (file,) = (file for file in tmp_path.iterdir() if file.suffix != ".json")
    if len(list(tmp_path.iterdir())) == 1:
        assert torch.equal(load_sae(file, given=given).encode(x_BD, tokens_B), own_BF)


def refusal(place: Path, given: Given = NOTHING, named: str | None = None) -> str:
    with pytest.raises(ValueError) as raised:
        load_sae(place, named, given)
    text = str(raised.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("save", "given", "said"),
    [
        (
            lambda at: bussmann(at, "batchtopk", UNBIASED),
            Given(),
            "above which threshold latents fire; give threshold=",
        ),
        (lambda at: bussmann(at, "batchtopk", UNBIASED), Given(k=3), "whose files say k themselves"),
        (lambda at: bussmann(at, "topk", OURS), Given(), "b_enc is not 0"),
        (lambda at: bussmann(at, "topk", UNBIASED, top_k="many"), Given(), "top_k is 'many'"),
        (
            lambda at: bussmann(at, "topk", UNBIASED, input_unit_norm=True),
            Given(),
            "input_unit_norm changes each token",
        ),
        (lambda at: bussmann(at, "topk", UNBIASED, activation="gelu"), Given(), "gelu is not relu"),
        (lambda at: bussmann(at, "maxpool", UNBIASED), Given(), "sae_type maxpool is not one of vanilla"),
        (lambda at: bussmann(at, "jumprelu", OURS), Given(), "no jumprelu.log_threshold"),
        (lambda at: saev(at, OURS, {"schema": 4, "cfg": {"activation": {"cls": "Abs"}}}), Given(), "activation Abs"),
        (lambda at: saev(at, OURS, {"schema": 4, "cfg": {"activation": {"cls": "TopK"}}}), Given(), "top_k is 'None'"),
        (lambda at: tokenized(at, TURNED), Given(), "give k="),
        (lambda at: tokenized(at, TURNED), Given(k=3, activation="relu"), "of which one can be"),
        (lambda at: tokenized(at, TURNED), Given(k=F + 1), f"k={F + 1} is more than its {F} latents"),
        (lambda at: plain(at, OURS), Given(), "whether it is ReLU or TopK"),
        (
            lambda at: plain(at, {**OURS, "threshold": W.third_F.abs()}),
            Given(k=3, subtract_b_dec=True),
            "says itself how its latents fire; leave k out",
        ),
        (lambda at: bussmann(at, "topk", UNBIASED), Given(threshold=0.1), "leave threshold out"),
        (lambda at: plain(at, OURS), Given(k=3), "give subtract_b_dec="),
        (lambda at: plain(at, {**OURS, "b_enc": W.b_F[:-1]}), Given(k=3, subtract_b_dec=True), "W_dec is"),
        (lambda at: plain(at, {**OURS, "W_enc": torch.ones(F)}), Given(k=3, subtract_b_dec=True), "W_enc is"),
    ],
)
def test_what_is_not_said_or_cannot_be(save: Callable[[Path], None], given: Given, said: str, tmp_path: Path) -> None:
    save(tmp_path)
    assert said in refusal(tmp_path, given)


NAMED = {
    "batchtopk of Bussmann": "batch_topk",
    "saev topk": "saev",
    "tokenized": "tokenized_sae",
    "tensors, linear": "tensors",
}


def without_biases(t: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in t.items() if name not in ("b_dec", "bias")}


def not_finite(t: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor / 0 if tensor.dim() == 2 else tensor for name, tensor in t.items()}


CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "more": lambda t: {**t, "more": torch.zeros(3)},
    "b_dec": without_biases,
    "not finite": not_finite,
    "float16) has numbers that are not finite": lambda t: {name: (1e6 * tensor).half() for name, tensor in t.items()},
}


def changed(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The same file, its line of JSON before it where it has one, with other tensors."""
    whole = file.read_bytes()
    head = whole[: whole.index(b"\n") + 1] if whole[:1] == b"{" else b""
    tensors = torch.load(io.BytesIO(whole[len(head) :]))
    with file.open("wb") as out:
        out.write(head)
        torch.save(change(tensors), out)


@pytest.mark.parametrize("said", CHANGES)
@pytest.mark.parametrize("name", NAMED)
def test_tensors_that_are_not_theirs(name: str, said: str, tmp_path: Path) -> None:
    save, _, given = FORMATS[name]
    save(tmp_path)
    changed(next(file for file in tmp_path.iterdir() if file.suffix == ".pt"), CHANGES[said])
    assert said in refusal(tmp_path, given, NAMED[name])


@pytest.mark.parametrize("name", [name for name in NAMED if name != "tensors, linear"])
def test_a_transposed_matrix(name: str, tmp_path: Path) -> None:
    """Plain tensors may lie either way."""
    save, _, given = FORMATS[name]
    save(tmp_path)
    file = next(file for file in tmp_path.iterdir() if file.suffix == ".pt")
    changed(file, lambda t: {**t, "W_dec": t["W_dec"].T.clone()})
    assert "W_dec is" in (said := refusal(tmp_path, given))
    assert "it is transposed" in said


@pytest.mark.parametrize("name", NAMED)
def test_pickles_and_damaged_files(name: str, tmp_path: Path) -> None:
    save, _, given = FORMATS[name]
    save(tmp_path)
    file, mark = next(file for file in tmp_path.iterdir() if file.suffix == ".pt"), tmp_path / "executed"
    whole = file.read_bytes()
    changed(file, lambda t: {**t, "more": Evil(mark)})
    evil = file.read_bytes()
    for contents in (evil, b"", b"garbage", pickle.dumps(Evil(mark)), whole[: len(whole) // 2], b"{" + whole):
        file.write_bytes(contents)
        refusal(tmp_path, given, NAMED[name])
        with contextlib.suppress(ValueError):
            load_sae(tmp_path, given=given)
    assert not mark.exists()


def square() -> dict[str, torch.Tensor]:
    """An encoder and a decoder of unit rows that correlate, as many latents as numbers."""
    rows = torch.randn(D, D, generator=torch.Generator().manual_seed(1))
    rows /= rows.norm(dim=1, keepdim=True)
    noise = torch.randn(D, D, generator=torch.Generator().manual_seed(2))
    return {
        "W_enc": (rows.T + 0.1 * noise).contiguous(),
        "W_dec": rows,
        "b_enc": torch.zeros(D),
        "b_dec": torch.ones(D),
    }


@pytest.mark.parametrize("turned", [(), ("W_enc",), ("W_dec",), ("W_enc", "W_dec")])
def test_square_matrices_lie_as_their_directions_say(turned: tuple[str, ...], tmp_path: Path) -> None:
    tensors, given = square(), Given(activation="relu", subtract_b_dec=True)
    plain(tmp_path, {**tensors, **{name: tensors[name].T.contiguous() for name in turned}})
    sae = load_sae(tmp_path, given=given)
    assert torch.equal(sae.tensors["W_enc"], tensors["W_enc"])
    assert torch.equal(sae.tensors["W_dec"], tensors["W_dec"])


def test_square_matrices_whose_directions_say_nothing(tmp_path: Path) -> None:
    tensors = {**square(), "W_dec": 2 * square()["W_dec"]}
    plain(tmp_path, tensors)
    assert "give layout=" in refusal(tmp_path, Given(k=3, subtract_b_dec=True))
    sae = load_sae(tmp_path, given=Given(k=3, subtract_b_dec=True, layout="DF,FD"))
    assert torch.equal(sae.tensors["W_dec"], tensors["W_dec"])
    wrong = Given(k=3, subtract_b_dec=True, layout="FD,FD")
    assert "W_enc is transposed" in refusal(tmp_path, wrong)


@pytest.mark.parametrize("own", [{"k": 0}, {"threshold": -1.0}, {"activation": "gelu"}, {"layout": "up"}, {"k": 2.5}])
def test_what_cannot_be_given(own: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(own))):
        Given(**own)


def test_what_files_say_of_their_place(tmp_path: Path) -> None:
    bussmann(tmp_path, "vanilla", OURS)
    assert told(tmp_path) == {
        "model_name": "gpt2-small",
        "hook_name": "blocks.8.hook_resid_pre",
        "context_size": 128,
    }


def test_gemma_scope_says_what_it_is(tmp_path: Path) -> None:
    second_scope(tmp_path)
    config: dict[str, Any] = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "affine_connection": False}
    hooks = {"hf_hook_point_in": "model.layers.2.pre", "hf_hook_point_out": "model.layers.2.post"}
    (tmp_path / "config.json").write_text(json.dumps(config | hooks))
    assert load_sae(tmp_path).transcodes
    assert told(tmp_path / "params.safetensors")["model_name"] == "google/gemma-3-1b-pt"
    (tmp_path / "config.json").write_text(json.dumps(config | {"affine_connection": True}))
    assert "affine_connection=True" in refusal(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "topk"}))
    assert "architecture topk is not jump_relu" in refusal(tmp_path)
    (tmp_path / "config.json").unlink()
    tensors = load_file(tmp_path / "params.safetensors")
    save_file({**tensors, "w_dec": tensors["w_dec"][:, None].repeat(1, 3, 1)}, tmp_path / "params.safetensors")
    assert "several layers" in refusal(tmp_path)
    (tmp_path / "first").mkdir()
    npz(tmp_path / "first")
    assert load_sae(tmp_path / "first" / "params.npz").width == F


def test_a_set_of_circuit_tracer(tmp_path: Path) -> None:
    circuit_tracer(tmp_path)
    (tmp_path / "layer_3.safetensors").rename(tmp_path / "layer_0.safetensors")
    circuit_tracer(tmp_path)
    (tmp_path / "layer_3.safetensors").rename(tmp_path / "layer_10.safetensors")
    kind = format_of(tmp_path)
    assert "a set of 2 layers" in refusal(tmp_path)
    with pytest.raises(ValueError, match=r"no layer_1\.safetensors"):
        kind.members(tmp_path)
    (tmp_path / "config.yaml").write_text("transcoders: [hf://a/b/layer_0.safetensors, layer_10.safetensors]\n")
    assert [file.name for file in kind.members(tmp_path)] == ["layer_0.safetensors", "layer_10.safetensors"]
    for text, said in (
        ("transcoders: [layer_0.safetensors, layer_1.safetensors, layer_10.safetensors]", "lists layer_1.safetensors"),
        ("transcoders: [layer_0.safetensors]", "layer_10.safetensors, which config.yaml does not list"),
        ("model_kind: cross_layer_transcoder", "cross_layer_transcoder is not transcoder_set"),
        ("[1]", "holds no mapping"),
        ("a: [", "is not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
    ):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ValueError, match=said):
            kind.members(tmp_path)
    hooks = "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\nmodel_name: org/small\n"
    (tmp_path / "config.yaml").write_text(hooks)
    assert told(tmp_path / "layer_10.safetensors") == {
        "hook_name": "blocks.10.mlp.hook_in",
        "hook_name_out": "blocks.10.hook_mlp_out",
        "model_name": "org/small",
    }


def test_k_is_that_of_the_file(tmp_path: Path) -> None:
    bussmann(tmp_path, "topk", UNBIASED, top_k=str(K - 2))
    assert (load_sae(tmp_path).encode(activations(5)) > 0).sum(1).max() == K - 2
