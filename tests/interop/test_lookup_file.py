"""A tokenized SAE's table is a file beside the others: what is in it, that it comes back, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_sweep.interop import load_sae, saelens
from sae_sweep.saes.inference import InferenceSae
from tests.interop.trained import CONFIGS, VOCABULARY, WIDTH, raw_activations, tokenized, trained_member

METADATA = {"hook_name": "blocks.3.hook_resid_post", "model_name": "small"}
FILE = "lookup.safetensors"
TOKENS_B = torch.arange(50) * 7 % VOCABULARY


def save(folder: Path, name: str = "topk", subtract: bool = False) -> InferenceSae:
    sae = tokenized(trained_member(name, 0).folded(), subtract)
    saelens.write(folder, sae, METADATA, torch.linspace(0, 1, WIDTH))
    return sae


@pytest.mark.parametrize("subtract", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_round_trip(name: str, subtract: bool, tmp_path: Path) -> None:
    """To the last bit: the table, whether the encoder sees it, and so codes and reconstructions."""
    sae, x_BD = save(tmp_path, name, subtract), raw_activations(50, 1)
    again = load_sae(tmp_path)
    assert sae.lookup is not None
    assert again.lookup is not None
    assert torch.equal(again.lookup.rows_VD, sae.lookup.rows_VD)
    assert again.lookup.subtract is subtract
    f_BF = again.encode(x_BD, TOKENS_B)
    assert torch.equal(f_BF, sae.encode(x_BD, TOKENS_B))
    assert torch.equal(again.decode(f_BF, TOKENS_B), sae.decode(f_BF, TOKENS_B))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_other_files_are_those_of_the_sae_without_a_table(name: str, tmp_path: Path) -> None:
    plain, with_table = tmp_path / "plain", tmp_path / "table"
    plain.mkdir()
    with_table.mkdir()
    saelens.write(plain, trained_member(name, 0).folded(), METADATA, torch.linspace(0, 1, WIDTH))
    save(with_table, name)
    assert {file.name for file in with_table.iterdir()} == {file.name for file in plain.iterdir()} | {FILE}
    for file in ("sae_weights.safetensors", "sparsity.safetensors"):
        assert (plain / file).read_bytes() == (with_table / file).read_bytes()
    config = json.loads((with_table / "cfg.json").read_text())
    assert config.pop("lookup") == {"file": FILE, "rows": VOCABULARY, "subtract": False}
    assert config == json.loads((plain / "cfg.json").read_text())


@pytest.mark.parametrize("name", ["topk"])
def test_without_a_table_none_is_read(name: str, tmp_path: Path) -> None:
    """One that an earlier save left behind included."""
    save(tmp_path, name)
    saelens.write(tmp_path, trained_member(name, 0).folded(), METADATA, torch.zeros(WIDTH))
    assert load_sae(tmp_path).lookup is None


def damage(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / FILE)), folder / FILE)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {"lookup": t["lookup"][:-1].contiguous()},
        lambda t: {"lookup": t["lookup"][:, :-1].contiguous()},
        lambda t: {"lookup": t["lookup"].T.contiguous()},
        lambda t: {"rows": t["lookup"]},
        lambda t: {**t, "more": torch.zeros(1)},
    ],
    ids=["a row too few", "too narrow", "transposed", "another name", "one too many"],
)
def test_another_table_is_refused(change: Callable[[dict[str, Any]], dict[str, Any]], tmp_path: Path) -> None:
    save(tmp_path)
    damage(tmp_path, change)
    with pytest.raises(ValueError, match=r"lookup\.safetensors"):
        load_sae(tmp_path)


def test_a_damaged_or_missing_table_is_named(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"lookup\.safetensors"):
        load_sae(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=r"lookup\.safetensors"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    "entry", [{}, {"rows": VOCABULARY}, {"subtract": True}, {"rows": "many", "subtract": True}, [VOCABULARY], True]
)
def test_a_config_that_does_not_describe_its_table_is_refused(entry: Any, tmp_path: Path) -> None:
    save(tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, "lookup": entry}))
    with pytest.raises(ValueError, match=r"cfg\.json"):
        load_sae(tmp_path)
