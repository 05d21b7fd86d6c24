"""A config whose activations are cached, and what is read with it."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_sweep.activations.block import Block
from sae_sweep.activations.cache_folder import cache_key
from sae_sweep.config.files import config_of
from sae_sweep.config.schema import MemberConfig
from sae_sweep.model import together
from sae_sweep.model.harvest import harvest
from sae_sweep.training.run.sources import LanguageModelSource
from tests.evaluation.groups import small

RESIDUAL, MLP = "blocks.1.hook_resid_post", "blocks.2.mlp.hook_post"
BLOCKS = 5
"""Of 32 rows; the text has 100 or so, so that the last are of a second epoch."""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.jsonl"
    write_text(file, 0)
    return file


def write_text(file: Path, seed: int) -> None:
    words = random.Random(seed)
    documents = ["".join(words.choice("abcdefgh \n") for _ in range(100)) for _ in range(22)]
    file.write_text("\n".join(json.dumps({"text": document}) for document in documents))


@pytest.fixture
def config(llama_folder: Path, text: Path, tmp_path: Path) -> Callable[..., MemberConfig]:
    """A config of this text and model, cached in `cache` unless told otherwise."""

    def made(*overrides: str) -> MemberConfig:
        shared = [
            *small(tmp_path / "outputs", llama_folder, text),
            *(
                "training.batch_size=64",
                "training.tokens=2200",
                "sae.l1=1",
                f"data.cache={tmp_path / 'cache'}",
                *overrides,
            ),
        ]
        return config_of(shared)

    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The sites that each forward pass for activations was made for."""
    calls: list[tuple[str, ...]] = []
    real = harvest

    def counted(model: Any, tokens_RT: Any, hooks: Any) -> Any:
        calls.append(tuple(hooks))
        return real(model, tokens_RT, hooks)

    monkeypatch.setattr(together, "harvest", counted)
    return calls


def blocks(config: MemberConfig, *hooks: str, order: Any = range(BLOCKS)) -> list[Block]:
    """Blocks as a new command reads them, in the order of their indices."""
    source = LanguageModelSource(config, hooks or (RESIDUAL,))
    read = {index: source.block(index) for index in order}
    return [read[index] for index in sorted(read)]


def assert_same(found: list[Block], expected: list[Block]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.index, one.epoch) == (other.index, other.epoch)
        assert list(one.activations) == list(other.activations)
        assert list(one.tokens) == list(other.tokens)
        for hook, x_BD in other.activations.items():
            assert one.activations[hook].dtype == x_BD.dtype
            assert torch.equal(one.activations[hook], x_BD)
            assert one.tokens[hook].dtype == other.tokens[hook].dtype
            assert torch.equal(one.tokens[hook], other.tokens[hook])


def folder_of(config: MemberConfig) -> Path:
    assert config.data.cache is not None
    return Path(config.data.cache) / f"{cache_key(config)}-cpu"


def kept(config: MemberConfig) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder_of(config).iterdir()}


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of the cache; each is one line."""
    messages = [record.getMessage() for record in caplog.records if record.getMessage().startswith("data.cache")]
    assert not any("\n" in message for message in messages)
    return messages
