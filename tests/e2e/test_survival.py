"""The real command, killed and stopped, against the same command left alone: every file, bit for bit."""

import signal
from pathlib import Path
from random import Random

import pytest

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
