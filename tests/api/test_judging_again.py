"""`sae-sweep eval`: a finished sweep judged again, on the same, more and other tokens, with SAEs from elsewhere."""

import inspect
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sae_sweep as ss
from sae_sweep import cli
from sae_sweep.interop import saelens
from sae_sweep.model.suffix import Suffix
from sae_sweep.saes.inference import Lookup

ROWS_PER_FORWARD = 8


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


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def judged(folder: Path) -> dict[str, Any]:
    files = list((folder / "eval").glob("*.json"))
    assert len(files) == 1
    return {each.name: read(each / "eval" / files[0].name) for each in folder.iterdir() if (each / "eval").is_dir()}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["eval", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_the_same_tokens_give_the_same_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last digit, and in one clean pass for all members."""
    passes, clean = [], Suffix.clean
    monkeypatch.setattr(Suffix, "clean", lambda self, tokens: passes.append(len(tokens)) or clean(self, tokens))
    assert cli.main(["eval", str(folder)]) == 0
    found = judged(folder)
    assert len(found) == 4
    assert found == {label: read(folder / label / "metrics.json") for label in found}
    assert sum(passes) == 63  # rows of 32 tokens in 2,000
    assert cli.main(["eval", str(folder), "--tokens", "2000"]) == 0
    assert judged(folder) == found


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
    ):
        assert said in refusal(capsys, str(folder), *arguments)
    assert not (folder / "eval").exists()
    assert not (folder / "foreign").exists()
