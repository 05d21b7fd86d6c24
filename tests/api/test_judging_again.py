"""`sae-sweep eval`: a finished sweep judged again, on the same, more and other tokens, with SAEs from elsewhere."""

import inspect
import json
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sae_sweep as ss
from sae_sweep import cli
from sae_sweep.api.heldout import HeldOutCodes
from sae_sweep.interop import saelens
from sae_sweep.saes.inference import Lookup

SAEBENCH = {
    "model_behavior_preservation": {"kl_div_score", "kl_div_with_ablation", "kl_div_with_sae"},
    "model_performance_preservation": {
        *("ce_loss_score", "ce_loss_with_ablation", "ce_loss_with_sae", "ce_loss_without_sae")
    },
    "reconstruction_quality": {"explained_variance", "explained_variance_legacy", "mse", "cossim"},
    "shrinkage": {"l2_norm_in", "l2_norm_out", "l2_ratio", "relative_reconstruction_bias"},
    "sparsity": {"l0", "l1"},
    "misc_metrics": {
        *("freq_over_1_percent", "freq_over_10_percent", "frac_alive"),
        *("normalized_freq_over_1_percent", "normalized_freq_over_10_percent"),
        *("average_max_encoder_cosine_sim", "average_max_decoder_cosine_sim"),
    },
    "token_stats": {"total_tokens_eval_reconstruction", "total_tokens_eval_sparsity_variance"},
}
"""The metrics of its core evaluation, all of which a result has."""


@pytest.fixture
def folder(sweep: ss.Sweep, tmp_path: Path) -> Path:
    """A copy: what is judged anew is written beside members."""
    copy = tmp_path / "mine"
    shutil.copytree(sweep.folder, copy)
    return copy


@pytest.fixture
def other(tmp_path: Path) -> Path:
    file = tmp_path / "other.txt"
    file.write_text(inspect.getsource(tarfile))
    return file


def activations(sae: ss.Sae) -> torch.Tensor:
    """At the counted positions of the held-out tokens, as the API finds them."""
    model, tokens = sae.model(), []
    for tokens_RT, counted_RT, _ in HeldOutCodes(sae, model)._batches():
        tokens.append(ss.harvest(model, sae.cfg.hook_name, tokens_RT)[counted_RT])
    return torch.cat(tokens)


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def judged(folder: Path) -> dict[str, Any]:
    files = list((folder / "eval").glob("*.json"))
    assert len(files) == 1
    return {each.name: read(each / "eval" / files[0].name) for each in folder.iterdir() if (each / "eval").is_dir()}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert cli.main(["eval", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_more_tokens_than_were_held_out_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under the same name, or as other data: training read them."""
    path = next(iter(read(folder / "sweep.json")["members"].values()))["config"]["data"]["path"]
    for more in ([], ["data=text", f"data.path={path}"]):
        line = refusal(capsys, str(folder), "--tokens", "2e4", *more)
        assert "evaluation.tokens=20000" in line
        assert "data.heldout_path=" in line
    assert not (folder / "eval").exists()


def test_other_tokens(folder: Path, other: Path) -> None:
    assert cli.main(["eval", str(folder), "--tokens=5e3", "data=text", f"data.path={other}"]) == 0
    found = judged(folder)
    (about,) = (read(file) for file in (folder / "eval").iterdir())
    assert (about["tokens"], about["data"]["path"], about["data"]["context"]) == (5000, str(other), 32)
    for label, metrics in found.items():
        own = read(folder / label / "metrics.json")
        assert metrics.keys() == own.keys()
        assert metrics["tokens_evaluated"] > 2 * own["tokens_evaluated"]
        assert metrics["ce_clean"] != own["ce_clean"]
        assert metrics["dead_fraction"] == own["dead_fraction"]
        assert 0 < metrics["ce_recovered"] < 1


def test_an_sae_from_elsewhere_becomes_a_point(folder: Path, tmp_path: Path) -> None:
    """A member that went through another program's files, and was imported again, is judged as the member itself."""
    member = next(each for each in folder.iterdir() if each.name.startswith("topk-l0_16"))
    theirs, out, place = tmp_path / "theirs", tmp_path / "layers.2", ["--model=demo", "--site=blocks.2.hook_resid_post"]
    assert cli.main(["export", str(member), "--format", "sparsify", "--out", str(theirs)]) == 0
    assert cli.main(["import", str(theirs), *place, "--out", str(out)]) == 0
    assert cli.main(["eval", str(folder), f"--sae={out}"]) == 0
    foreign = folder / "foreign" / "layers.2"
    metrics, own = read(foreign / "metrics.json"), read(member / "metrics.json")
    for key in ("l0", "mse", "fvu", "ce_sae", "kl", "ce_clean", "ce_zero", "ce_mean", "later_fvu", "tokens_evaluated"):
        assert metrics[key] == pytest.approx(own[key], rel=1e-5), key
    assert metrics["dead_fraction"] is None
    assert read(foreign / "origin.json")["source"] == str(out)
    (cell,) = read(folder / "pareto.json")["cells"]
    assert "foreign/layers.2" in [point["member"] for point in cell["points"]]
    assert "foreign/layers.2" in (folder / "report.html").read_text()
    assert len(ss.open(folder).frontier()) > 0
    assert ss.load(foreign).W_dec.shape == (256, 128)


def test_what_saebench_would_say(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its result file for each member, by its names; numbers that both define alike are those of metrics.json."""
    assert cli.main(["eval", str(folder), "--format", "saebench"]) == 0
    (place,) = (folder / "eval").glob("*-saebench")
    assert len(list(place.iterdir())) == 4
    found = read(place / "mine_topk-l0_8-w256_eval_results.json")
    metrics, sae = read(folder / "topk-l0_8-w256" / "metrics.json"), ss.load(folder / "topk-l0_8-w256")
    groups = found["eval_result_metrics"]
    assert {name: set(values) for name, values in groups.items()} == SAEBENCH
    numbers = {name: value for values in groups.values() for name, value in values.items()}
    assert -1 not in numbers.values()
    assert (numbers["l0"], numbers["cossim"], numbers["ce_loss_score"]) == (
        metrics["l0"],
        metrics["cosine"],
        metrics["ce_recovered"],
    )
    assert numbers["kl_div_score"] == pytest.approx(1 - metrics["kl"] / metrics["kl_zero"])
    x_BD = activations(sae)
    ratio = sae(x_BD).norm(dim=1) / x_BD.norm(dim=1)
    assert numbers["l2_ratio"] == pytest.approx(float(ratio.mean()), rel=1e-5)
    assert numbers["l2_norm_in"] == pytest.approx(float(x_BD.norm(dim=1).mean()), rel=1e-5)
    unit = torch.nn.functional.normalize(sae.W_enc, dim=0)
    nearest = (unit.T @ unit - 2 * torch.eye(256)).amax(1).mean()
    assert numbers["average_max_encoder_cosine_sim"] == pytest.approx(float(nearest), abs=1e-6)
    density = sae.density()
    often = density[density > 0.01].sum() / density.sum()
    assert numbers["normalized_freq_over_1_percent"] == pytest.approx(float(often), rel=1e-5)
    assert (found["sae_lens_release_id"], found["sae_lens_id"]) == ("mine", "topk-l0_8-w256")
    assert found["eval_config"]["batch_size_prompts"] * found["eval_config"]["n_eval_reconstruction_batches"] == 64
    assert "--format=pickle is not saebench" in refusal(capsys, str(folder), "--format", "pickle")


def test_an_sae_with_a_lookup_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of 0 change nothing; a table that has not all ids is refused."""
    member, out = folder / "topk-l0_16-w256", tmp_path / "tokenized"
    saved = ss.load(member)
    for rows, code in ((4096, 0), (40, 2)):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        plain = saved.inference.subtracting()
        table = Lookup(torch.zeros(rows, 128), subtract=False)
        saelens.write(out, replace(plain, lookup=table), {"hook_name": "blocks.2.hook_resid_post"}, None)
        assert cli.main(["eval", str(folder), f"--sae={out}"]) == code
    assert "has rows for 40 token ids" in capsys.readouterr().err
    metrics, own = read(folder / "foreign" / "tokenized" / "metrics.json"), read(member / "metrics.json")
    for key in ("l0", "mse", "ce_sae", "kl"):
        assert metrics[key] == pytest.approx(own[key], rel=1e-5), key


def test_refusals_write_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        (["--tokens", "many"], "--tokens=many is not a number"),
        (["--tokens", "0"], "evaluation.tokens=0 must be at least 1"),
        (["sae.k=3"], "sae.k=3 is none of"),
        (["data.pat=3"], "data.pat"),
        (["data=nosuch"], "data=nosuch is not one of"),
        (["--sae", str(tmp_path / "no")], "does not exist"),
        (["--sae", str(tmp_path / "empty")], "holds no SAE"),
        (["--colour", "red"], "--colour is not one of"),
        (["evaluation.positions=none"], "evaluation.positions=none: there are counted and all"),
        (["evaluation.tokens=10", "--tokens=20"], "--tokens and evaluation.tokens= say the same; give one"),
        (["site.layer="], "site.layer= is not a whole number or null"),
        (["--into", str(folder)], "holds no SAE in a known format"),
    ):
        assert said in refusal(capsys, str(folder), *arguments)
    assert "eval: --into takes SAEs" in refusal(capsys, "--into", str(folder))
    assert not (folder / "eval").exists()
    assert not (folder / "foreign").exists()


@pytest.mark.parametrize(
    "key",
    [
        *("data.max_norm_ratio=3", "data.seed=7", "data.block_rows=8", "data.window_rows=9", "data.rows_per_forward=2"),
        *("data.attention=document", "data.cache=here", "evaluation.every=100", "evaluation.later_sites=0"),
    ],
)
def test_what_judging_does_not_go_by_is_refused(
    key: str, folder: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the same tokens, and on others; from Python too."""
    data = ["data=text", f"data.path={other}"]
    for more in ([], data):
        assert refusal(capsys, str(folder), *more, key).startswith(f"sae-sweep: error: {key}: ")
    if key != "evaluation.later_sites=0":  # which Python compares at others if asked
        with pytest.raises(ss.ConfigError, match=re.escape(key)):
            ss.evaluate(ss.open(folder), data=[*data, key])
    assert not list(folder.glob("**/eval"))


def test_what_has_changed_under_its_name_is_refused(
    folder: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the first tokens of the text training may have read some, now that it is another; of other text it has not."""
    entries = read(folder / "sweep.json")
    for entry in entries["members"].values():
        (file,) = entry["content"]["data.path"]["files"].values()
        file["bytes"] += 1
    (folder / "sweep.json").write_text(json.dumps(entries))
    assert "has changed from " in refusal(capsys, str(folder))
    assert cli.main(["eval", str(folder), "data=text", f"data.path={other}"]) == 0
    for entry in entries["members"].values():
        entry["content"]["model.path"]["files"]["config.json"]["bytes"] += 1
    (folder / "sweep.json").write_text(json.dumps(entries))
    assert "config.json has changed from " in refusal(capsys, str(folder), "data=text", f"data.path={other}")
    with pytest.raises(ss.ConfigError, match=r"config\.json has changed from "):
        ss.load(folder / "topk-l0_8-w256").model()


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors", "metrics.json", "config.yaml"])
def test_a_member_whose_file_is_damaged_is_named(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of the others is written then."""
    (folder / "topk-l0_8-w256" / name).write_bytes(b"\x00[")
    line = refusal(capsys, str(folder))
    assert line.startswith("sae-sweep: error: ")
    assert "topk-l0_8-w256" in line
    assert not list(folder.glob("**/eval"))
