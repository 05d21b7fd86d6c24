"""`scripts/train_demo_lm.py` makes the shipped model by default, and others when asked."""

import importlib.util
import json
import sys
from types import ModuleType

import pytest

from scripts.bench.language_model import SHIPPED_FOLDER
from scripts.bench.measure import ROOT

NAMES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_demo_lm_sizes", ROOT / "scripts" / "train_demo_lm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_the_default_is_the_shipped_model(script: ModuleType) -> None:
    made = script.build_model(script.SHIPPED).config.to_dict()
    shipped = json.loads((SHIPPED_FOLDER / "config.json").read_text(encoding="utf-8"))
    assert {name: made[name] for name in (*NAMES, "vocab_size")} == {
        name: shipped[name] for name in (*NAMES, "vocab_size")
    }


def test_sizes_can_be_asked_for(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ["--width", "64", "--mlp", "192", "--layers", "2", "--heads", "2"]
    monkeypatch.setattr(sys, "argv", ["train_demo_lm.py", *sizes])
    asked = script.parse_arguments()
    config = script.build_model(script.Shape(asked.width, asked.mlp, asked.layers, asked.heads)).config
    assert [getattr(config, name) for name in NAMES] == [64, 192, 2, 2, 2]


def test_a_width_that_heads_cannot_share_is_refused(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_demo_lm.py", "--width", "50", "--heads", "4"])
    with pytest.raises(SystemExit, match="2"):
        script.parse_arguments()
    assert "--width: 50 does not divide into 4 heads" in capsys.readouterr().err
