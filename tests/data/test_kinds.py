"""Kinds of data added from outside: a file and a yaml each, found by an entry point."""

import json
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.cli import main
from sae_sweep.data.kinds import KINDS, data_kind
from sae_sweep.data.tokens import open_tokens
from sae_sweep.host import kinds

COUNTING = """
import numpy as np

from sae_sweep.data.packing import TokenRows

MODEL, TOKENIZES = True, False
READS = HELDOUT = ("path",)


def check(config):
    int(config.path)


def note(config):
    return "data: numbers"


def open_rows(config, tokenizer, form):
    return TokenRows.of_sheet(np.arange(int(config.path)).reshape(-1, form.context), form, config.path), None
"""
AXES = """
import torch

MODEL = TOKENIZES = STORED = False
NOUN = "synthetic activations"
MEANING = "Each lies on an axis."
READS, HELDOUT = (), ("kind", "context")


class Axes:
    truth_GD = torch.eye(6)

    def codes(self, part, block, rows):
        yield torch.eye(6)[torch.arange(block, block + rows) % 6]

    def activations(self, part, block, rows):
        for codes in self.codes(part, block, rows):
            yield codes @ self.truth_GD, codes


def check(config):
    pass


def note(config):
    return None


def dimensions(config):
    return 6


def title(data):
    return "the axes"


def facts(data):
    return [("Axes", "six")]


def open_synthetic(config):
    return Axes()
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Another package with the kinds `counting` and `axes`; the folder of their yamls."""
    for name, source in (("counting", COUNTING), ("axes", AXES)):
        (tmp_path / f"data_kind_{name}.py").write_text(source)
        (tmp_path / "configs" / "data").mkdir(parents=True, exist_ok=True)
        yaml = f"defaults:\n  - /data/demo@_here_\n  - _self_\n\nkind: {name}\nmax_norm_ratio: null\n"
        (tmp_path / "configs" / "data" / f"{name}.yaml").write_text(yaml)
    information = tmp_path / "more_data-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: more-data\nVersion: 1.0\n")
    points = "[sae_sweep.data]\ncounting = data_kind_counting\naxes = data_kind_axes\n"
    (information / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    invalidate_caches()
    kinds._installed.cache_clear()
    yield tmp_path / "configs"
    kinds._installed.cache_clear()


def test_rows_from_outside(installed: Path, make_config: Any) -> None:
    assert sorted(KINDS) == ["activations", "axes", "counting", "demo", "given", "hub", "text", "tokens", "toy"]
    assert data_kind("counting").HELDOUT == ("path",)
    tokens = open_tokens(make_config("counting", "20", context=4), 4, None, 100)
    assert tokens.heldout.tolist() == [[0, 1, 2, 3]]
    assert {tuple(row) for index in range(2) for row in tokens.training.block(index)[0].tolist()} == {
        (first, first + 1, first + 2, first + 3) for first in (4, 8, 12, 16)
    }


def test_activations_from_outside(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep of data that is neither ours nor read by a model: planned, trained, judged and reported."""
    monkeypatch.chdir(tmp_path)
    command = [
        *("--config-dir", str(installed), "data=axes", "name=axes", "tracking=none", "model.device=cpu", "sae=topk"),
        *("sae.k=1", "sae.width=12", "data.context=8", "data.block_rows=32", "training.batch_size=64"),
        *("training.tokens=2e4", "training.lr=1e-2", "evaluation.tokens=64"),
    ]
    assert main([*command, "dry_run=true"]) == 0
    assert "synthetic activations (the axes, float32, cpu)" in capsys.readouterr().out
    assert main(command) == 0
    (cell,) = json.loads((tmp_path / "outputs" / "axes" / "pareto.json").read_text())["cells"]
    assert (cell["key"]["model"], cell["key"]["site"]["in"]) == ("axes", "axes")
    assert cell["key"]["evaluation"]["data"] == {"kind": "axes", "context": 8}
    (point,) = cell["points"]
    assert point["l0"] <= 1
    assert point["explained_variance"] > 0.9
    assert "<dt>Axes</dt><dd>six</dd>" in (tmp_path / "outputs" / "axes" / "report.html").read_text()
