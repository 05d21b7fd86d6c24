"""Cached activations are the streamed ones, bit for bit, and whatever happens to the folder."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_sweep.activations import cache_folder
from sae_sweep.activations.cache import BlockCache
from sae_sweep.activations.cache_folder import cache_key
from sae_sweep.activations.stream import BlockRows
from sae_sweep.config.schema import MemberConfig
from tests.activations.conftest import BLOCKS, MLP, RESIDUAL, assert_same, blocks, folder_of, kept, said, write_text


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model.dtype=bfloat16",),
        ("model.dtype=float16", "data.max_norm_ratio=1.1"),
        ("model.dtype=float64", "data.block_rows=20", "data.bos=never"),
    ],
    ids=lambda overrides: " ".join(overrides) or "plain",
)
def test_cached_is_streamed(
    config: Callable[..., MemberConfig], overrides: tuple[str, ...], asked: list[tuple[str, ...]]
) -> None:
    """Two sites, written in another order than they are read, into a second epoch."""
    streamed = blocks(config("data.cache=null", *overrides), RESIDUAL, MLP)
    cached = config(*overrides)
    written = blocks(cached, RESIDUAL, MLP, order=[3, 0, 4, 1, 2])
    asked.clear()
    read = blocks(cached, RESIDUAL, MLP)
    assert asked == []
    assert_same(written, streamed)
    assert_same(read, streamed)
    if "data.max_norm_ratio=1.1" in overrides:
        assert len({streamed[0].count([hook]) for hook in streamed[0].activations}) == 2
    else:
        assert streamed[-1].epoch == (0 if overrides[1:] else 1)


def test_nothing_is_written_without_the_key(config: Callable[..., MemberConfig], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    blocks(config("data.cache=null"))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_further_site_costs_its_own_files(config: Callable[..., MemberConfig], asked: list[tuple[str, ...]]) -> None:
    streamed = blocks(config("data.cache=null"), MLP, RESIDUAL)
    blocks(config(), RESIDUAL)
    before = kept(config())
    asked.clear()
    assert_same(blocks(config(), MLP, RESIDUAL), streamed)
    assert set(asked) == {(MLP,)}
    after = kept(config())
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + BLOCKS


def test_the_files_say_what_they_are(config: Callable[..., MemberConfig], text: Path) -> None:
    (block, *_) = blocks(config(), order=[0])
    assert sorted(kept(config())) == [f"000000-{RESIDUAL}.safetensors", "000000-tokens.safetensors", "about.json"]
    about = json.loads((folder_of(config()) / "about.json").read_text())
    assert about["data"]["path"] == str(text)
    assert about["model"]["dtype"] == "float32"
    assert about["versions"].keys() == {"torch", "transformers"}
    assert "model.safetensors" in about["weights"]["files"]
    activations = load_file(folder_of(config()) / f"000000-{RESIDUAL}.safetensors")
    assert torch.equal(activations["activations"], block.activations[RESIDUAL])
    tokens = load_file(folder_of(config()) / "000000-tokens.safetensors")
    assert torch.equal(tokens["tokens"], block.tokens[RESIDUAL])


@pytest.mark.parametrize(
    "change",
    [
        *("data.seed=1", "data.context=12", "model.path={gpt2}", "model.dtype=bfloat16", "data.bos=never"),
        *("data.block_rows=20", "data.window_rows=40", "data.rows_per_forward=8", "data.path={other}"),
        *("evaluation.tokens=320",),
    ],
)
def test_what_another_folder_is_for(
    config: Callable[..., MemberConfig], gpt2_folder: Path, tmp_path: Path, change: str
) -> None:
    assert cache_key(config(change.format(gpt2=gpt2_folder, other=tmp_path))) != cache_key(config())


@pytest.mark.parametrize(
    "change",
    [
        *("sae=standard", "sae.width=50", "training.lr=0.1", "training.tokens=9000", "training.batch_size=32"),
        "seed=1",
        *("site=mlp_out", "site.layer=0", "evaluation.every=100", "tracking=offline", "name=other", "model.name=x"),
        *("model.device=auto", "data.max_norm_ratio=2", "data.cache=elsewhere"),
    ],
)
def test_what_shares_a_folder(config: Callable[..., MemberConfig], change: str) -> None:
    assert cache_key(config(change)) == cache_key(config())


def test_held_out_tokens_of_a_source_of_their_own_take_none_of_those_that_are_cached(
    config: Callable[..., MemberConfig], tmp_path: Path
) -> None:
    apart = f"data.heldout_path={tmp_path / 'other.txt'}"
    assert cache_key(config(apart, "evaluation.tokens=320")) == cache_key(config(apart))
    assert cache_key(config(apart)) != cache_key(config())


def test_a_path_is_one_place_however_it_is_written(
    config: Callable[..., MemberConfig], llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(llama_folder.parent)
    assert cache_key(config(f"model.path=./{llama_folder.name}")) == cache_key(config())


def test_weights_that_change_in_their_folder_are_noticed(
    config: Callable[..., MemberConfig], llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "model"
    shutil.copytree(llama_folder, own)
    before = config(f"model.path={own}")
    keys = [cache_key(before)]
    first = blocks(before, order=[0])
    scaled = {name: 1.5 * tensor for name, tensor in load_file(own / "model.safetensors").items()}
    save_file(scaled, own / "model.safetensors", {"format": "pt"})
    keys.append(cache_key(before))
    (now, *_), (expected, *_) = (
        blocks(config(f"model.path={own}", *off), order=[0]) for off in ((), ("data.cache=null",))
    )
    assert_same([now], [expected])
    assert not torch.equal(now.activations[RESIDUAL], first[0].activations[RESIDUAL])
    os.utime(own / "model.safetensors", ns=(1, 1))
    keys.append(cache_key(before))
    (own / "config.json").write_text((own / "config.json").read_text() + " ")
    keys.append(cache_key(before))
    monkeypatch.setattr(cache_folder, "version", lambda library: f"another {library}")
    keys.append(cache_key(before))
    assert len(set(keys)) == len(keys)


def test_other_data_under_the_same_path_is_noticed(
    config: Callable[..., MemberConfig], text: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = blocks(config())
    write_text(text, 1)
    streamed = blocks(config("data.cache=null"))
    assert not torch.equal(streamed[0].tokens[RESIDUAL], old[0].tokens[RESIDUAL])
    caplog.clear()
    assert_same(blocks(config()), streamed)
    (message,) = said(caplog)
    assert f"000000-{RESIDUAL}.safetensors was made from other rows or weights" in message
    caplog.clear()
    assert_same(blocks(config()), streamed)
    assert said(caplog) == []


def test_another_commit_of_a_hub_model_is_noticed(config: Callable[..., MemberConfig], tmp_path: Path) -> None:
    rows = BlockRows(0, torch.arange(6).view(1, 6), torch.ones(1, 6, dtype=torch.bool), torch.arange(6))

    def read(commit: str, value: float) -> float:
        cache = BlockCache(tmp_path / "cache", {}, torch.device("cpu"), commit, [config()])
        x_BD = cache.recall(rows, ["hook"], lambda rows, hooks: {"hook": torch.full((6, 2), value)})["hook"]
        return x_BD[0, 0].item()

    assert [read("a", 1), read("a", 2), read("b", 3), read("b", 4), read("a", 5)] == [1, 1, 3, 3, 5]
