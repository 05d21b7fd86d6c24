"""What a push would put on the hub, shown without a network: files, card and picture."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml

import sae_sweep as ss
from sae_sweep import cli


def test_a_dry_run_shows_the_card(
    sweep: ss.Sweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: pytest.fail("a dry run used the network"))
    assert cli.main(["export", str(sweep.folder), "--push", "hub:me/saes", "dry_run=true"]) == 0
    told = capsys.readouterr().out
    files, _, card = told.partition("---\n")
    for label in sweep:
        for name in ("cfg.json", "sae_weights.safetensors", "metrics.json", "provenance.json"):
            assert f"{label}/{name}" in files
        assert f"| {label} |" in card
    head, _, body = card.partition("---\n")
    assert yaml.safe_load(head)["library_name"] == "saelens"
    first = next(iter(sweep))
    assert f'SAE.from_pretrained("me/saes", "{first}")' in body
    assert f'ss.load("hub:me/saes/{first}")' in body
    assert "torch " in body


def test_what_is_uploaded(sweep: ss.Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """One member alone, half the bytes; it loads from where it would be."""
    seen: dict[str, Any] = {}

    class Api:
        def create_repo(self, repository: str, exist_ok: bool) -> None:
            seen["repository"] = repository

        def upload_folder(self, folder_path: Path, repo_id: str, commit_message: str) -> None:
            seen["files"] = {str(f.relative_to(folder_path)) for f in folder_path.rglob("*") if f.is_file()}
            seen["sae"] = ss.load(folder_path / label)
            seen["svg"] = ET.fromstring((folder_path / "frontier.svg").read_text())

    label = next(iter(sweep))
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert cli.main(["export", str(sweep.folder / label), "--push=hub:me/saes", "--dtype", "bfloat16"]) == 0
    assert seen["repository"] == "me/saes"
    assert {"README.md", "frontier.svg", f"{label}/cfg.json"} < seen["files"]
    assert seen["sae"].W_dec.equal(sweep[label].W_dec.bfloat16().float())
    assert len(seen["svg"].findall("{http://www.w3.org/2000/svg}circle[@r='5']")) == 1


def test_refusals(sweep: ss.Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        ([str(tmp_path), "--push", "hub:me/saes"], "neither a sweep nor a member"),
        ([str(sweep.folder), "--push", "me/saes"], "--push hub:USER/REPO"),
        ([str(sweep.folder), "--push", "hub:saes"], "--push hub:USER/REPO"),
        ([str(sweep.folder), "--push", "hub:me/saes", "--format", "sparsify"], "--format saelens alone"),
        ([str(sweep.folder), "--push", "hub:me/saes", "--dtype", "int4"], "--dtype=int4"),
    ):
        assert cli.main(["export", *arguments, "dry_run=true"]) == 2
        assert said in capsys.readouterr().err
