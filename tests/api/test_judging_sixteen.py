"""Sixteen members at ten times their tokens: one clean pass, and on their own tokens the numbers they had."""

import inspect
import json
import tarfile
import typing
from typing import Any

import pytest

import sae_sweep as ss
from sae_sweep import cli
from sae_sweep.model.suffix import Suffix

TOKENS, CONTEXT, MEMBERS = 128, 32, 16


@pytest.fixture(scope="module")
def sixteen(tmp_path_factory: pytest.TempPathFactory) -> ss.Sweep:
    """TopK of every k, with held-out text of their own."""
    folder = tmp_path_factory.mktemp("sixteen")
    for name, module in (("text.txt", typing), ("held.txt", tarfile)):
        (folder / name).write_text(inspect.getsource(module))
    return ss.train(
        *("sae=topk", f"sae.k={','.join(map(str, range(1, MEMBERS + 1)))}", "sae.width=64", "site.layer=1"),
        *("training.tokens=256", "training.batch_size=256", "training.lr=6e-3", "tracking=none", "model.device=cpu"),
        *("data=text", f"data.path={folder / 'text.txt'}", f"data.heldout_path={folder / 'held.txt'}"),
        *(f"data.context={CONTEXT}", "data.block_rows=32", f"evaluation.tokens={TOKENS}"),
        name="sixteen",
        output_dir=folder / "outputs",
    )


def evaluations(sweep: ss.Sweep, named: str) -> dict[str, Any]:
    return {label: json.loads((sweep.folder / label / "eval" / named).read_text()) for label in sweep}


def test_ten_times_the_tokens_in_one_clean_pass(sixteen: ss.Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, clean = list[int](), Suffix.clean
    monkeypatch.setattr(Suffix, "clean", lambda self, tokens: rows.append(len(tokens)) or clean(self, tokens))
    assert len(sixteen) == MEMBERS
    assert cli.main(["eval", str(sixteen.folder), f"--tokens={10 * TOKENS}"]) == 0
    assert sum(rows) == 10 * TOKENS // CONTEXT
    (about,) = (sixteen.folder / "eval").iterdir()
    for label, found in evaluations(sixteen, about.name).items():
        own = json.loads((sixteen.folder / label / "metrics.json").read_text())
        assert found["tokens_evaluated"] == pytest.approx(10 * own["tokens_evaluated"], rel=0.02)
        assert found["l0"] == pytest.approx(own["l0"], rel=0.2)
        assert found["ce_clean"] != own["ce_clean"]
    about.unlink()
    rows.clear()
    assert cli.main(["eval", str(sixteen.folder)]) == 0
    assert sum(rows) == TOKENS // CONTEXT
    (about,) = (sixteen.folder / "eval").iterdir()
    for label, found in evaluations(sixteen, about.name).items():
        assert found == json.loads((sixteen.folder / label / "metrics.json").read_text())
