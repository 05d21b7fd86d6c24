"""`sae-sweep import`: an SAE of another program as a folder that all of ours is read from, or one line why not."""

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import sae_sweep as ss
from sae_sweep import cli
from sae_sweep.interop import load_sae
from tests.interop.foreign import FORMATS as TOLD
from tests.interop.foreign import activations, circuit_tracer
from tests.interop.foreign_files import FORMATS
from tests.interop.foreign_files import TABLE as LOOKUP

PLACE = ("--model", "gpt2", "--site", "blocks.3.hook_resid_post")
TRANSCODES = ("--output", "blocks.3.hook_mlp_out")


def source(name: str, folder: Path) -> Path:
    folder.mkdir()
    (TOLD[name] if name in TOLD else FORMATS[name])[0](folder)
    return folder


def imported(place: Path, *options: str) -> Path:
    out = place.parent / "ours"
    assert cli.main(["import", str(place), f"--out={out}", *options]) == 0
    return out


def read(file: Path) -> Any:
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("BatchTopKSAE", ()),
        ("sparsify transcoder", TRANSCODES),
        ("gemma scope", ()),
        ("saelens checkpoint, scaled", ()),
        ("openai", ("--format", "openai")),
        ("batchtopk of Bussmann", ("--threshold", "1.1")),
        ("saev topk", ()),
        ("tokenized", ("--k=7",)),
        ("tensors, half turned", ("--activation=relu", "--subtract-b-dec=true")),
    ],
)
def test_what_is_written_gives_the_same(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    place = source(name, tmp_path / "theirs")
    out = imported(place, *PLACE, *options)
    answers = TOLD[name][1] if name in TOLD else FORMATS[name][1]
    x_BD, tokens_B = activations(), None
    f_BF, x_hat_BD = answers(x_BD)
    if name == "tokenized":
        tokens_B = torch.arange(len(x_BD)) % len(LOOKUP)
        x_hat_BD = x_hat_BD + LOOKUP[tokens_B]
    sae = ss.load(out)
    torch.testing.assert_close(sae.encode(x_BD, tokens_B), f_BF, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae.decode(sae.encode(x_BD, tokens_B), tokens_B, x_BD), x_hat_BD, rtol=1e-5, atol=1e-5)
    assert (sae.cfg.hook_name, sae.cfg.model_name) == ("blocks.3.hook_resid_post", "gpt2")
    assert sae.home.written == (("blocks.3.hook_mlp_out",) if options == TRANSCODES else ("blocks.3.hook_resid_post",))
    with pytest.raises(ss.ConfigError, match="says how often latents fire"):
        sae.density()


def test_where_it_is_from_is_written_down(tmp_path: Path) -> None:
    place = source("batchtopk of Bussmann", tmp_path / "theirs")
    out = imported(place, "--threshold=1.1", "--model=org/small")
    assert {file.name for file in out.iterdir()} == {"cfg.json", "sae_weights.safetensors", "provenance.json"}
    metadata = read(out / "cfg.json")["metadata"]
    assert metadata.items() >= {"hook_name": "blocks.8.hook_resid_pre", "model_name": "org/small"}.items()
    assert metadata["imported_by"] == f"sae-sweep {ss.__version__}"
    found = read(out / "provenance.json")
    assert found["versions"]["torch"] == torch.__version__
    assert found["content"]["source"]["reference"] == str(place)
    files = found["content"]["source"]["files"]
    weights = place / "sae.pt"
    assert set(files) == {str(weights), str(place / "config.json")}
    assert files[str(weights)]["hash"] == blake2b(weights.read_bytes(), digest_size=16).hexdigest()


def test_numbers_that_are_none_stop_no_import(tmp_path: Path) -> None:
    place = source("saelens standard", tmp_path / "theirs")
    card = read(place / "cfg.json")
    card["metadata"] |= {"l0": float("nan"), "ce": float("-inf"), "num_dead_features": 3}
    (place / "cfg.json").write_text(json.dumps(card))
    found = read(imported(place, *PLACE) / "cfg.json")["metadata"]
    assert (found["l0"], found["ce"], found["num_dead_features"]) == (None, None, 3)


def test_a_hook_that_is_null_stops_no_export(tmp_path: Path) -> None:
    place = source("saelens standard", tmp_path / "theirs")
    card = read(place / "cfg.json")
    (place / "cfg.json").write_text(json.dumps(card | {"metadata": card["metadata"] | {"hook_name": None}}))
    assert cli.main(["export", str(place), "--format=saelens", f"--out={tmp_path / 'out'}"]) == 0
    assert read(tmp_path / "out" / "cfg.json")["reshape_activations"] == "none"


def test_a_set_is_imported_whole(tmp_path: Path) -> None:
    place = tmp_path / "set"
    place.mkdir()
    for layer in (0, 1):
        circuit_tracer(place)
        (place / "layer_3.safetensors").rename(place / f"layer_{layer}.safetensors")
    config = {"model_name": "org/small", "model_kind": "transcoder_set", "feature_input_hook": "mlp.hook_in"}
    (place / "config.yaml").write_text(yaml.safe_dump({**config, "feature_output_hook": "hook_mlp_out"}))
    out = imported(place)
    assert sorted(each.name for each in out.iterdir()) == ["layer_0", "layer_1"]
    for layer in (0, 1):
        sae, theirs = ss.load(out / f"layer_{layer}"), load_sae(place / f"layer_{layer}.safetensors")
        assert (sae.reads, sae.writes) == (f"blocks.{layer}.mlp.hook_in", (f"blocks.{layer}.hook_mlp_out",))
        assert torch.equal(sae.W_enc, theirs.tensors["W_enc"])


def test_one_hook_is_not_that_of_a_whole_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for layer in (0, 1):
        circuit_tracer(tmp_path)
        (tmp_path / "layer_3.safetensors").rename(tmp_path / f"layer_{layer}.safetensors")
    for option in ("--site=blocks.2.mlp.hook_in", "--output=blocks.2.hook_mlp_out"):
        assert cli.main(["import", str(tmp_path), "--model=m", option, f"--out={tmp_path / 'out'}"]) == 2
        assert f"{option} is one hook, and this is a set of 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_writes_elsewhere_is_a_transcoder_though_its_files_do_not_say_so(tmp_path: Path) -> None:
    """Transcoders of Gemma Scope's first release have the names and shapes that its SAEs have."""
    out = imported(source("gemma scope", tmp_path / "theirs"), *PLACE, *TRANSCODES)
    sae, (f_BF, x_hat_BD) = ss.load(out), TOLD["gemma scope"][1](activations())
    assert (sae.reads, sae.writes) == ("blocks.3.hook_resid_post", ("blocks.3.hook_mlp_out",))
    assert sae.inference.transcodes
    assert read(out / "cfg.json")["architecture"] == "jumprelu_transcoder"
    torch.testing.assert_close(sae.decode(sae.encode(activations())), x_hat_BD, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae.encode(activations()), f_BF, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("openai", ("--model=gpt2",), "does not say its hook_name; give --site"),
        ("openai", ("--site=blocks.3.hook_resid_post",), "does not say its model_name; give --model"),
        ("sparsify transcoder", PLACE, "does not say its hook_name_out; give --output"),
        ("openai", (*PLACE, "--format=pickle"), "format pickle is not one of batch_topk, circuit_tracer"),
        ("openai", (*PLACE, "--format=saelens"), "cfg.json is missing"),
        ("openai", (*PLACE, "--k=3"), "whose files say k themselves"),
        ("tokenized", (*PLACE, "--k=many"), "--k=many is not a whole number"),
        ("tokenized", (*PLACE, "--k=0"), "--k=0 is not a whole number above 0"),
        ("tokenized", (*PLACE, "--activation=gelu"), "--activation=gelu is not relu or topk"),
        ("tokenized", PLACE, "give k="),
        ("tensors", (*PLACE, "--subtract-b-dec=maybe"), "--subtract-b-dec=maybe is not true or false"),
        ("openai", (*PLACE, *TRANSCODES), "reconstructs what it reads; leave --output out"),
        ("tensors", (*PLACE, "--colour=red"), "--colour is not one of"),
        ("tensors", (*PLACE, "--model=gpt3"), "give --model once"),
    ],
)
def test_refusals_write_nothing(
    name: str, options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = source(name, tmp_path / "theirs")
    assert cli.main(["import", str(place), f"--out={tmp_path / 'ours'}", *options]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert [each.name for each in tmp_path.iterdir()] == ["theirs"]


def test_a_place_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = source("openai", tmp_path / "theirs")
    for arguments, said in (
        ([str(tmp_path / "no"), f"--out={tmp_path / 'ours'}"], "does not exist"),
        ([str(place), *PLACE, f"--out={place}"], "is there already"),
        ([str(place), *PLACE], "give --out once"),
        ([f"--out={tmp_path / 'ours'}"], "takes one folder or file"),
    ):
        assert cli.main(["import", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_what_is_not_said_is_given_to_load(tmp_path: Path) -> None:
    place = source("tokenized", tmp_path / "theirs")
    sae = ss.load(place, hook="blocks.3.hook_resid_post", model="gpt2", k=7)
    assert sae.cfg.architecture == "topk"
    for given, said in (({}, "give k="), ({"k": -1}, "k=-1 is not"), ({"kk": 1}, "kk: not one of hook, model, format")):
        with pytest.raises(ss.ConfigError, match=said):
            ss.load(place, **given)
