"""`sae-sweep eval PLACE ...`: members, SAEs of other folders, and SAEs judged into a sweep, by the same words."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import sae_sweep as ss
from sae_sweep import cli
from sae_sweep.api.heldout import HeldOutCodes

TOPK, GATED = "topk-l0_8-w256", "gated-l0_8-w256"


@pytest.fixture
def folder(sweep: ss.Sweep, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sweep.folder, tmp_path / "mine"))


def printed(text: str) -> dict[str, list[str]]:
    """The words of each line that names an SAE."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if " ce_recovered " in line}


def test_some_members(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their results lie beside metrics.json; others are not judged."""
    assert cli.main(["eval", str(folder / TOPK), str(folder / GATED), "--tokens", "500"]) == 0
    assert set(printed(capsys.readouterr().out)) == {TOPK, GATED}
    assert {each.parent.name for each in folder.glob("*/eval")} == {TOPK, GATED}
    (file,) = (folder / TOPK / "eval").iterdir()
    assert 450 < json.loads(file.read_text())["tokens_evaluated"] < 500


def test_an_sae_beside_a_member_is_printed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the held-out tokens of the member, as the member: it is the same SAE in another format."""
    theirs = tmp_path / "theirs"
    assert cli.main(["export", str(folder / TOPK), "--format", "dictionary-learning", "--out", str(theirs)]) == 0
    assert cli.main(["eval", str(folder / TOPK), str(theirs), "--tokens=500"]) == 0
    found = printed(capsys.readouterr().out)
    assert set(found) == {TOPK, "theirs"}
    assert found["theirs"] == found[TOPK]
    assert not (folder / TOPK / "eval").exists()


def test_into_a_sweep(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(folder / TOPK), "--format=saelens", f"--out={tmp_path / 'theirs'}"]) == 0
    assert cli.main(["eval", str(tmp_path / "theirs"), "--into", str(folder), "--tokens=500"]) == 0
    assert "foreign/theirs" in printed(capsys.readouterr().out)
    assert (folder / "foreign" / "theirs" / "metrics.json").is_file()
    assert "foreign/theirs" in (folder / "report.html").read_text()


def test_a_name_that_another_one_has(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was judged before stays, and the same SAE keeps the name that it got."""
    one, other = tmp_path / "one" / "trainer_0", tmp_path / "two" / "trainer_0"
    for member, out in ((TOPK, one), (GATED, other)):
        assert cli.main(["export", str(folder / member), "--format=saelens", f"--out={out}"]) == 0
    for sae in (one, other, other):
        assert cli.main(["eval", str(sae), "--into", str(folder), "--tokens=500"]) == 0
    origins = {name: folder / "foreign" / name / "origin.json" for name in ("trainer_0", "two-trainer_0")}
    found = {name: json.loads(file.read_text())["source"] for name, file in origins.items()}
    assert found == {"trainer_0": str(one), "two-trainer_0": str(other)}
    assert len(list((folder / "foreign").glob("*trainer_0"))) == 2
    capsys.readouterr()
    assert cli.main(["eval", str(folder), f"--sae={one}", f"--sae={one}", "--tokens=500"]) == 2
    assert capsys.readouterr().err.strip().endswith(f"--sae={one} is given twice")


def judged(folder: Path, label: str) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in (folder / label / "eval").glob("*.json")]


def test_members_at_another_site(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another layer's activations are read and replaced: L0 is what the SAE's codes of these are. `site.hook=` names
    the same place, and of the same place there is one file."""
    own = json.loads((folder / TOPK / "metrics.json").read_text())
    assert cli.main(["eval", str(folder), "site.layer=1"]) == 0
    assert cli.main(["eval", str(folder / GATED), "site.hook=blocks.1.hook_resid_post"]) == 0
    capsys.readouterr()
    (about,) = (json.loads(file.read_text()) for file in (folder / "eval").glob("*.json"))
    assert about["site"] == "blocks.1.hook_resid_post"
    (moved,) = judged(folder, GATED)
    sae = ss.load(folder / GATED)
    codes = [
        sae.encode(ss.harvest(sae.model(), about["site"], tokens_RT)[counted_RT])
        for tokens_RT, counted_RT, _ in HeldOutCodes(sae, sae.model())._batches()
    ]
    assert moved["l0"] == pytest.approx(float((torch.cat(codes) > 0).sum(1).double().mean()), rel=1e-6)
    assert moved["tokens_evaluated"] == own["tokens_evaluated"]
    assert moved["ce_clean"] == own["ce_clean"]
    assert moved["ce_zero"] != own["ce_zero"]
    found = ss.evaluate([sae], data=["site.layer=1"]).iloc[0]
    assert {key: moved[key] for key in found.index} == found.to_dict()


def test_members_at_their_own_site(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is the file of no other site, with the numbers of metrics.json."""
    assert cli.main(["eval", str(folder / TOPK), "site=resid_post", "site.layer=2"]) == 0
    assert cli.main(["eval", str(folder / TOPK)]) == 0
    told = capsys.readouterr().err
    (found,) = judged(folder, TOPK)
    assert found == json.loads((folder / TOPK / "metrics.json").read_text())
    assert told.count("data: 2,016 tokens read to judge on, each once, of the 2,016 held out from training\n") == 2


def test_where_an_sae_is_that_does_not_say_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a sweep, and beside a member; its numbers are those of the member it is."""
    theirs = tmp_path / "theirs"
    assert cli.main(["export", str(folder / TOPK), "--format=sparsify", f"--out={theirs}"]) == 0
    assert cli.main(["eval", str(folder / TOPK), "site.layer=1"]) == 0
    (member,) = judged(folder, TOPK)
    assert cli.main(["eval", str(theirs), "--into", str(folder), "site.layer=1"]) == 0
    assert cli.main(["eval", str(folder / TOPK), str(theirs), "site.layer=1"]) == 0
    capsys.readouterr()
    foreign = folder / "foreign" / "theirs"
    found = json.loads((foreign / "metrics.json").read_text())
    for key in ("l0", "mse", "ce_sae", "ce_zero", "kl"):
        assert found[key] == pytest.approx(member[key], rel=1e-5), key
    site = json.loads((foreign / "origin.json").read_text())["judged"]["site"]
    assert site["hook"] == "blocks.1.hook_resid_post"
    assert json.loads((folder / TOPK / "metrics.json").read_text())["ce_zero"] != found["ce_zero"]


def test_other_tokens_are_accounted_for(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """How many are judged, left over in the last document, and skipped: 5 documents of 101 tokens and separators."""
    records = [{"text": "a b c d e f g h i j\n" * 40}, {"text": ""}, {"text": None}] * 20
    (tmp_path / "other.jsonl").write_text("\n".join(map(json.dumps, records)))
    place = ["data=text", f"data.path={tmp_path / 'other.jsonl'}"]
    assert cli.main(["eval", str(folder / TOPK), "--tokens=600", *place]) == 0
    told = capsys.readouterr().err
    (found,) = judged(folder, TOPK)
    rows = 19  # of 32 tokens, one of them BOS
    assert f"data: {32 * rows} tokens read to judge on, each once, of data.path={tmp_path / 'other.jsonl'}" in told
    assert "which training did not read, " in told
    assert " empty records skipped" in told
    assert found["tokens_evaluated"] <= 31 * rows


def test_what_cannot_be(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder / TOPK, tmp_path / "alone")
    (tmp_path / "alone" / "config.yaml").unlink()
    for arguments, said in (
        ([str(tmp_path / "alone")], "eval: give data=text data.path=FILE (in Python data=[...] of these)"),
        ([str(tmp_path / "alone"), "--into", str(tmp_path)], "has no sweep.json"),
        ([str(tmp_path / "alone"), "--format=saebench"], "--format is for members of a sweep"),
        ([str(tmp_path / "alone"), "--colour=red"], "--colour is not one of"),
        ([str(tmp_path / "no")], "no sweep.json"),
        ([str(folder), "site.layer=9"], "site.layer=9 is beyond the model: 0 to 3"),
        ([str(folder), "site=nosuch"], "site=nosuch is not one of attn_out"),
        ([str(folder), "site.colour=red"], "site.colour: no such key"),
        ([str(folder), "site=mlp_post"], "and blocks.2.mlp.hook_post has 384; site=mlp_post cannot be"),
        ([str(folder), "site=mlp"], "reconstructs what it reads; leave it null"),
        ([str(folder), "data.context=16"], "data.context=16: what was held out of this source has 32"),
        ([str(folder), "data=activations", "data.path=x.npy"], "data.kind=activations: no language model reads it"),
    ):
        assert cli.main(["eval", *arguments]) == 2
        assert said in capsys.readouterr().err
