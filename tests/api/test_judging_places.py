"""`sae-sweep eval PLACE ...`: members, SAEs of other folders, and SAEs judged into a sweep, by the same words."""

import json
import shutil
from pathlib import Path

import pytest

import sae_sweep as ss
from sae_sweep import cli

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


def test_what_cannot_be(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder / TOPK, tmp_path / "alone")
    (tmp_path / "alone" / "config.yaml").unlink()
    for arguments, said in (
        ([str(tmp_path / "alone")], "give data="),
        ([str(tmp_path / "alone"), "--into", str(tmp_path)], "has no sweep.json"),
        ([str(tmp_path / "alone"), "--format=saebench"], "--format is for members of a sweep"),
        ([str(tmp_path / "alone"), "--colour=red"], "--colour is not one of"),
        ([str(tmp_path / "no")], "no sweep.json"),
    ):
        assert cli.main(["eval", *arguments]) == 2
        assert said in capsys.readouterr().err
