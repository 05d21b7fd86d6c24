"""`sae-sweep eval` of sweeps on activations that no model of ours gave: every metric but what a model says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sae_sweep as ss
from sae_sweep import cli
from sae_sweep.data.rows import TokenStream
from sae_sweep.data.stored.rows import _Numbers
from sae_sweep.evaluation.metrics import undefined_without_a_model

X = np.random.default_rng(0).standard_normal((120, 32, 8), dtype=np.float32)
SMALL = (
    *("sae=topk,standard", "sae.l0=3", "sae.width=24", "training.batch_size=32", "training.tokens=1600"),
    *("tracking=none", "model.device=cpu", "data.context=32", "evaluation.tokens=640", "data.block_rows=8"),
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep on a file of 120 rows, of which the first 20 are held out."""
    folder = tmp_path_factory.mktemp("stored")
    np.save(folder / "x.npy", X)
    data = ("data=activations", f"data.path={folder / 'x.npy'}", "data.max_norm_ratio=1.5")
    return ss.train(*SMALL, *data, name="stored", output_dir=folder).folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = ("data=toy", "data.toy.latents=40", "data.toy.dimensions=8", "data.toy.active=2")
    return ss.train(*SMALL, *data, name="toy", output_dir=tmp_path_factory.mktemp("toy")).folder


def metrics(folder: Path) -> dict[str, dict[str, Any]]:
    return {file.parent.name: json.loads(file.read_text()) for file in folder.glob("*/metrics.json")}


def judged(folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """What `eval` writes of each member."""
    before = set(folder.glob("*/eval/*.json"))
    assert cli.main(["eval", str(folder), *arguments]) == 0
    new = set(folder.glob("*/eval/*.json")) - before
    return {file.parent.parent.name: json.loads(file.read_text()) for file in new}


@pytest.mark.parametrize("kind", ["stored", "toy"])
def test_the_same_activations(kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """To the last digit, from the command line and from Python."""
    folder = request.getfixturevalue(kind)
    assert judged(folder) == metrics(folder)
    capsys.readouterr()
    found = ss.evaluate(ss.open(folder))
    for label, own in metrics(folder).items():
        assert {key: own[key] for key in found.columns} == found.loc[label].to_dict()
        assert all(own[key] is None for key in undefined_without_a_model() if key != "outlier_fraction")


def test_fewer(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first 10 of the rows held out: L0 of TopK is 3, whatever they are, and the others' are computed again."""
    found = judged(stored, "--tokens=320")
    told = capsys.readouterr().err
    assert f"data: 320 activations read to judge on, each once, of those held out of data.path={stored.parent}" in told
    x_BD = torch.from_numpy(X[:10].reshape(-1, 8))
    x_BD = x_BD[x_BD.norm(dim=1) <= 1.5 * first_block(stored).norm(dim=1).median()]
    assert len(x_BD) < 320
    for label, own in found.items():
        sae = ss.load(stored / label)
        codes_BF = sae.encode(x_BD)
        assert own["tokens_evaluated"] == len(x_BD)
        assert own["l0"] == pytest.approx(float((codes_BF > 0).sum(1).double().mean()), rel=1e-6)
        error = float((sae.decode(codes_BF) - x_BD).square().sum(1).mean())
        assert own["mse"] == pytest.approx(error, rel=1e-5)


def first_block(folder: Path) -> torch.Tensor:
    """The rows of the stream's first block, which its order says."""
    data = ss.load(next(folder.glob("topk*"))).home.config.data
    order = TokenStream(_Numbers(20, 120), data.seed, data.window_rows, data.block_rows)
    return torch.from_numpy(X[order.block(0)[0][:, 0]].reshape(-1, 8))


def test_others(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Any number of them, from a file that training did not read, however it is named; what is too long is what was
    too long in training."""
    np.save(tmp_path / "more.npy", 3 * X)
    two = [judged(stored, "--tokens=3200", f"data.{key}={tmp_path / 'more.npy'}") for key in ("path", "heldout_path")]
    assert two[0] == two[1]
    for own in two[0].values():
        assert own["outlier_fraction"] > 0.5
        assert own["tokens_evaluated"] < 1600
    assert "data: 3,200 activations read to judge on, each once, of " in capsys.readouterr().err


def test_more_of_the_synthetic_ones(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = judged(toy, "--tokens=1280")
    for label, own in metrics(toy).items():
        assert found[label]["tokens_evaluated"] == 1280
        assert found[label]["mmcs_truth"] == pytest.approx(own["mmcs_truth"], rel=0.1)


def test_an_sae_from_elsewhere(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Becomes a point of the sweep: here a member in another format, of the same numbers."""
    member = next(folder for folder in stored.iterdir() if folder.name.startswith("topk"))
    assert cli.main(["export", str(member), "--format=sparsify", f"--out={tmp_path / 'theirs'}"]) == 0
    assert cli.main(["eval", str(tmp_path / "theirs"), "--into", str(stored)]) == 0
    found, own = json.loads((stored / "foreign/theirs/metrics.json").read_text()), metrics(stored)[member.name]
    for key in ("l0", "mse", "fvu", "alive", "tokens_evaluated"):
        assert found[key] == pytest.approx(own[key], rel=1e-6)
    assert "foreign/theirs" in ss.open(stored).frame().index


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        ("stored", ["--tokens=1e4"], "has no more than 640 activations that training did not read; give data.heldout"),
        ("stored", ["data=text", "data.path=x.txt"], "data.kind=text: these SAEs are of data.kind=activations"),
        ("stored", ["data.context=16"], "data.context=16: what was held out of this source has 32"),
        ("stored", ["site.layer=2"], "site.layer=2: topk-l0_3-w24 is of data.kind=activations, without sites"),
        ("stored", ["--format=saebench"], "--format=saebench asks what a language model loses, and there is none"),
        ("toy", ["data.toy.noise=0.5"], "data: synthetic activations are judged on more of their own alone"),
        ("toy", ["--analysis", "positions"], "synthetic activations have no language model"),
    ],
)
def test_what_cannot_be_is_one_line(
    kind: str, arguments: list[str], said: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue(kind)
    before = sorted(folder.rglob("*"))
    assert cli.main(["eval", str(folder), *arguments]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert sorted(folder.rglob("*")) == before


def test_the_file_that_was_trained_on_is_refused_as_another(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", str(stored), f"data.heldout_path={stored.parent}/*.npy"]) == 2
    assert "training read it; give others" in capsys.readouterr().err
