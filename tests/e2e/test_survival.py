"""The real command, killed and stopped, against the same command left alone: every file, bit for bit."""

import inspect
import json
import os
import signal
import tarfile
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sae_sweep.activations.stream import ActivationStream
from tests.e2e.forked import run_forked
from tests.e2e.kills import SWEEP, assert_same, ended_at, finish, start

MOMENTS = (signal.SIGTERM, signal.SIGKILL)
"""`test_survival_evidence.py` has many more."""


@pytest.fixture(scope="module")
def arguments(llama_folder: Path, text_file: Path) -> tuple[str, ...]:
    return (
        *("model=local", f"model.path={llama_folder}", "data=text", f"data.path={text_file}", *SWEEP),
        *("training.tokens=6e3", "training.checkpoint_tokens=100", "tracking=none", "name=it"),
        "training.milestones=[700,3333]",
    )


@pytest.mark.evidence  # tests/training/run/test_resume.py ends runs at chosen points every time
def test_ended_again_and_again(arguments: tuple[str, ...], tmp_path: Path) -> None:
    alone, random, sweep = tmp_path / "alone", Random(7), tmp_path / "outputs" / "it"
    alone.mkdir()
    code, said = finish(start(alone, *arguments))
    assert code == 0, said
    for attempt, number in enumerate(MOMENTS):
        process = start(tmp_path, *arguments)
        assert ended_at(process, sweep, random, number)
        code, said = finish(process)
        assert code == (-number if number == signal.SIGKILL else 128 + number), said
        assert said.count("resuming at step ") == (attempt > 0), said
        assert "Traceback" not in said
        if number != signal.SIGKILL:
            assert f"{number.name}: the checkpoint of step " in said
            assert '"state": "interrupted"' in (sweep / "sweep.json").read_text()
    code, said = finish(start(tmp_path, *arguments))
    assert code == 0, said
    assert_same(sweep, alone / "outputs" / "it")


def killed_at_block(number: int) -> None:
    """Have this process killed where a block is read for that time."""
    real, calls = ActivationStream.block, count(1)

    def block(stream: ActivationStream, index: int) -> Any:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(stream, index)

    setattr(ActivationStream, "block", block)  # noqa: B010 - to mypy a method is not to be assigned


def test_a_killed_mixture_goes_on(llama_folder: Path, text_file: Path, tmp_path: Path) -> None:
    """Of two sources in shares, one of which ends again and again, with attention that keeps within documents."""
    second = tmp_path / "second.jsonl"
    second.write_text("\n".join(json.dumps({"text": part}) for part in inspect.getsource(tarfile)[:4000].split("\n\n")))
    arguments = (
        *("model=local", f"model.path={llama_folder}", "data=text", f"data.path=[{text_file},{second}]", *SWEEP),
        *("data.weights=[0.6,0.4]", "data.attention=document", "training.tokens=4e3", "training.checkpoint_tokens=300"),
        *("tracking=none", "name=it", "evaluation.every=null"),
    )
    alone = tmp_path / "alone"
    alone.mkdir()
    assert run_forked(arguments, alone).returncode == 0
    assert run_forked(arguments, tmp_path, partial(killed_at_block, 6)).returncode == -signal.SIGKILL
    again = run_forked(arguments, tmp_path)
    assert (again.returncode, again.stderr.count("resuming at step ")) == (0, 1), again.stderr
    assert_same(tmp_path / "outputs" / "it", alone / "outputs" / "it")
