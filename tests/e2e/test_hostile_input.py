"""What comes from outside and is not what it should be: told in one line, and nothing is half-written."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_sweep.cli import main
from tests.e2e.told import refusal

SMALL = (
    *("model.device=cpu", "data.context=8", "data.block_rows=8", "data.rows_per_forward=4", "site.layer=1"),
    *("sae=topk,gated", "sae.l0=3", "sae.width=24", "training.batch_size=16", "training.tokens=160"),
    *("training.lr=1e-2", "evaluation.tokens=40", "tracking=none", "model=local"),
)
Command = Callable[..., tuple[int, str]]
LINE = re.compile(r"sae-sweep: error: [^\n]+\n")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`sae-sweep` in an empty folder: its exit code, and what it says on stderr."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(arguments)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, refusal(said.err)

    return run


@pytest.fixture
def model(tmp_path: Path, llama_folder: Path) -> Path:
    """A model to damage."""
    return Path(shutil.copytree(llama_folder, tmp_path / "model"))


def assert_refused(answer: tuple[int, str], *named: str) -> None:
    """One line, with these words, and nothing written."""
    code, said = answer
    assert code == 2, said
    assert LINE.fullmatch(said), said
    for word in named:
        assert word in said
    assert list(Path.cwd().iterdir()) == []


def ids(**changed: int) -> np.ndarray[Any, Any]:
    """Token ids [40, 8] from 3 up to 202; `first`, `later` put another one where the first or a later row has it."""
    rows = np.random.default_rng(0).integers(3, 203, (40, 8))
    rows[0, 3], rows[30, 3] = changed.get("first", rows[0, 3]), changed.get("later", rows[30, 3])
    return rows


TOKENS = {
    "an id beyond the vocabulary": (ids(later=300), "token id 300; the model's vocabulary of 300 ends at 299"),
    "a negative id": (ids(first=-1), "token id -1"),
    "an id beyond int32": (ids(first=2**40), "token id 1099511627776"),
    "objects, which are pickled": (np.array([[1, 2], [3]], dtype=object), "plain numbers"),
    "no rows": (ids()[:0], "has not one row"),
    "rows shorter than the context": (ids()[:, :5], "a row of 5 tokens, fewer than data.context=8"),
}


@pytest.mark.parametrize("kind", TOKENS)
def test_token_files(kind: str, command: Command, llama_folder: Path, tmp_path: Path) -> None:
    array, said = TOKENS[kind]
    np.savez(tmp_path / "ids.npz", tokens=array)
    answer = command(*SMALL, f"model.path={llama_folder}", "data=tokens", f"data.path={tmp_path / 'ids.npz'}")
    assert_refused(answer, "data.path", said)


@pytest.mark.parametrize("damage", ["cut", "no zip", "empty", "a folder"])
def test_a_token_file_that_is_none(damage: str, command: Command, llama_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "ids.npz"
    np.savez(file, tokens=ids())
    contents = {"cut": file.read_bytes()[:-40], "no zip": b"x" * 200, "empty": b"", "a folder": b""}[damage]
    file.unlink()
    file.mkdir() if damage == "a folder" else file.write_bytes(contents)
    answer = command(*SMALL, f"model.path={llama_folder}", "data=tokens", f"data.path={file}")
    assert_refused(answer, "data.path")


COLUMNS = {
    "ragged": ([[5] * 8, [6] * 3, [7] * 9], "a row of 3 tokens"),
    "an empty row": ([[5] * 8, []], "has no row of 8 tokens to train on"),
    "a row that is null": ([[5] * 8, None], "has no row of 8 tokens to train on"),
    "a null among the ids": ([[5] * 8, [6, 6, None, 6, 6, 6, 6, 6]], "a row that is no list of ids: row 2"),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_of_ids(kind: str, command: Command, llama_folder: Path, tmp_path: Path) -> None:
    import datasets

    rows, said = COLUMNS[kind]
    datasets.Dataset.from_dict({"tokens": rows}).save_to_disk(str(tmp_path / "saved"))
    answer = command(
        *(*SMALL, f"model.path={llama_folder}", "data=tokens", f"data.path={tmp_path / 'saved'}", "data.field=tokens")
    )
    assert_refused(answer, said)


@pytest.mark.parametrize("lines", [[], ['{"text": ""}'] * 9, ['{"text": 5}'], ['{"other": "a"}'], ["{"], ["\udcff"]])
def test_documents(lines: list[str], command: Command, llama_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.jsonl"
    file.write_text("\n".join(lines), errors="surrogateescape")
    answer = command(*SMALL, f"model.path={llama_folder}", "data=text", f"data.path={file}")
    assert_refused(answer, "data.path")


def test_empty_documents_among_others_are_passed_over(
    command: Command, llama_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    documents = [text_file.read_text()[i * 100 : i * 100 + 100] * (i % 3 > 0) for i in range(60)]
    file = tmp_path / "text.jsonl"
    file.write_text("\n".join(json.dumps({"text": document}) for document in documents))
    code, said = command(*SMALL, f"model.path={llama_folder}", "data=text", f"data.path={file}")
    assert code == 0, said


def poison(model: Path, token: int | None) -> None:
    """Have the model give NaN everywhere, or where it reads one token."""
    tensors = load_file(model / "model.safetensors")
    rows = slice(None) if token is None else token
    tensors["model.embed_tokens.weight"][rows] = torch.nan
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


def test_a_model_that_gives_no_numbers(command: Command, model: Path, text_file: Path) -> None:
    poison(model, None)
    assert_refused(command(*SMALL, f"model.path={model}", "data=text", f"data.path={text_file}"), "model.path")


@pytest.mark.parametrize("where", ["calibration", "a later block", "held-out rows", "a single token"])
def test_a_model_that_gives_no_numbers_for_some_token(
    where: str, command: Command, model: Path, tmp_path: Path
) -> None:
    """No member is trained on, scaled by or judged with what is no number: the site is named."""
    poison(model, 250)
    training, heldout = ids(), ids()
    if where == "calibration":
        training[:] = np.where(training > 100, 250, training)
    elif where == "a later block":
        training[30, 3:] = 250
    elif where == "held-out rows":
        heldout[:, 5] = 250
    for name, rows in (("training", training), ("heldout", heldout)):
        np.savez(tmp_path / f"{name}.npz", tokens=rows)
    code, said = command(
        *(*SMALL, f"model.path={model}", "data=tokens", f"data.path={tmp_path / 'training.npz'}"),
        *(f"data.heldout_path={tmp_path / 'heldout.npz'}", "data.window_rows=1"),
        *(["sae.lookup=learned"] if where == "a single token" else []),
    )
    named = "blocks.1.hook_resid_post: the model gives infinite or NaN activations in "
    if where in ("calibration", "a single token"):
        assert_refused((code, said), named + ("block 0" if where == "calibration" else "single tokens"))
        return
    assert code == 1
    assert "2 of 2 members failed" in said
    assert said.count(named + ("held-out rows 0 to 3" if where == "held-out rows" else "block 3")) == 2
    members = json.loads(Path("outputs/sweep/sweep.json").read_text())["members"].values()
    assert [entry["state"] for entry in members] == ["failed", "failed"]
    assert list(Path("outputs/sweep").glob("*/metrics.json")) == []


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *(("model.safetensors", damage) for damage in ("cut", "garbage", "empty")),
        *(("config.json", "garbage"), ("tokenizer.json", "cut"), ("tokenizer_config.json", "empty")),
    ],
)
def test_a_damaged_model_folder(file: str, damage: str, command: Command, model: Path, text_file: Path) -> None:
    contents = (model / file).read_bytes()
    (model / file).write_bytes(
        {"cut": contents[: len(contents) // 2], "garbage": b"\x93\x00{" * 30, "empty": b""}[damage]
    )
    assert_refused(command(*SMALL, f"model.path={model}", "data=text", f"data.path={text_file}"), "model.path")


def test_weights_that_lack_tensors(command: Command, model: Path, text_file: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    answer = command(*SMALL, f"model.path={model}", "data=text", f"data.path={text_file}")
    assert_refused(answer, "model.path", "lack 1 of the model's tensors")


class Runs:
    """Opens a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.file), "w")


def test_code_in_pickled_weights_is_not_run(command: Command, model: Path, text_file: Path) -> None:
    told = model / "ran"
    torch.save({**load_file(model / "model.safetensors"), "more": Runs(told)}, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    answer = command(*SMALL, f"model.path={model}", "data=text", f"data.path={text_file}")
    assert_refused(answer, "model.path", "cannot be loaded")
    assert not told.exists()


def test_code_of_a_model_is_not_run_unless_asked_for_by_name(command: Command, model: Path, text_file: Path) -> None:
    told = model / "ran"
    (model / "mine.py").write_text(f"open({str(told)!r}, 'w').close()\nraise ImportError('it ran')\n")
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    (model / "config.json").write_text(json.dumps(config))
    asked = (*SMALL, f"model.path={model}", "data=text", f"data.path={text_file}")
    assert_refused(command(*asked), "model.path")
    assert not told.exists()
    assert_refused(command(*asked, "model.trust_remote_code=true"), "model.path")
    assert told.exists()


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "''", "a\\b", "x" * 201, "'a\nb'"])
def test_names_that_lead_elsewhere(name: str, command: Command, llama_folder: Path, text_file: Path) -> None:
    asked = (*SMALL, f"model.path={llama_folder}", "data=text", f"data.path={text_file}")
    assert_refused(command(*asked, f"name={name}"), "name=")


@pytest.mark.parametrize("text", ["{", '{"version": 2, "members": {}}', '{"version": 1, "members": {"../x": {}}}'])
def test_a_sweep_file_of_another_kind(text: str, command: Command, llama_folder: Path, text_file: Path) -> None:
    sweep = Path("outputs/sweep/sweep.json")
    sweep.parent.mkdir(parents=True)
    sweep.write_text(text)
    asked = (*SMALL, f"model.path={llama_folder}", "data=text", f"data.path={text_file}")
    for words in (asked, ("status", str(sweep.parent)), ("report", str(sweep.parent))):
        code, said = command(*words)
        assert code == 2
        assert LINE.fullmatch(said), said
        assert "sweep.json" in said
    assert [path for path in Path.cwd().rglob("*") if path.is_file()] == [sweep.absolute()]


@pytest.mark.parametrize("text", [pytest.param("", marks=pytest.mark.evidence), '{"steps": 3}'])
def test_state_that_is_none(text: str, command: Command, llama_folder: Path, text_file: Path) -> None:
    """Nothing is gone on from what cannot be read, and nothing stumbles over it."""
    state = Path("outputs/sweep/.state")
    asked = (*SMALL, f"model.path={llama_folder}", "data=text", f"data.path={text_file}")
    assert command(*asked)[0] == 0
    (state / "0123-4567" / "00000001").mkdir(parents=True)
    for name in ("progress.json", "lock", "0123-4567/00000001/state.json"):
        (state / name).write_text(text)
    assert command("status", "outputs/sweep")[0] == 0
    assert command(*asked, "seed=0,1")[0] == 0


def test_a_pareto_file_of_another_kind_is_written_anew(command: Command, llama_folder: Path, text_file: Path) -> None:
    assert command(*SMALL, f"model.path={llama_folder}", "data=text", f"data.path={text_file}")[0] == 0
    pareto = Path("outputs/sweep/pareto.json")
    before = pareto.read_text()
    pareto.write_text('{"version": 99, "cells": "none"}')
    assert command("report", "outputs/sweep")[0] == 0
    assert pareto.read_text() == before
