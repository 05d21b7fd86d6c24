"""`scripts/train_demo_lm.py` makes the shipped model by default, and others when asked."""

import json
import sys

import pytest

from scripts import train_demo_lm as script
from scripts.bench.language_model import SHIPPED_FOLDER

NAMES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def test_the_default_is_the_shipped_model() -> None:
    made = script.build_model(script.SHIPPED).config.to_dict()
    shipped = json.loads((SHIPPED_FOLDER / "config.json").read_text(encoding="utf-8"))
    assert {name: made[name] for name in (*NAMES, "vocab_size")} == {
        name: shipped[name] for name in (*NAMES, "vocab_size")
    }


def test_sizes_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ["--width", "64", "--mlp", "192", "--layers", "2", "--heads", "2"]
    monkeypatch.setattr(sys, "argv", ["train_demo_lm.py", *sizes])
    asked = script.parse_arguments()
    config = script.build_model(script.Shape(asked.width, asked.mlp, asked.layers, asked.heads)).config
    assert [getattr(config, name) for name in NAMES] == [64, 192, 2, 2, 2]


def test_a_width_that_heads_cannot_share_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_demo_lm.py", "--width", "50", "--heads", "4"])
    with pytest.raises(SystemExit, match="2"):
        script.parse_arguments()
    assert "--width: 50 does not divide into 4 heads" in capsys.readouterr().err
