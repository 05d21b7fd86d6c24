"""What `test_survival.py` shows, at length: many kills, and the faults of disks, checkpoints, servers and members.

Writes what happened to tests/evidence/survival.json.
"""

import json
import platform
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from sae_sweep.runs import write_json_atomic
from tests.e2e.kills import SWEEP, assert_same, being_written, checkpoints, ended_at, finish, start, wait, written

pytestmark = pytest.mark.evidence

KILLS = 24
WILD = """# @package _global_
hydra:
  sweeper:
    grids:
      - sae: [gated, standard, batchtopk]
        sae.l0: 4
        training.lr: 1e-2
      - sae: jumprelu_anthropic
        sae.l0: 4
        training.lr: 1e6
        training.lr_warmup_steps: 0
"""
OUT = Path(__file__).parents[1] / "evidence" / "survival.json"


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, Any]]:
    """What goes into the file, once all has been shown."""
    entries: dict[str, Any] = {}
    yield entries
    if len(entries) == 9:
        machine = {"python": platform.python_version(), "torch": torch.__version__, "cpu": platform.machine()}
        write_json_atomic(OUT, entries | {"machine": machine})


@pytest.fixture(scope="module")
def arguments(llama_folder: Path, text_file: Path) -> tuple[str, ...]:
    return (
        *("model=local", f"model.path={llama_folder}", "data=text", f"data.path={text_file}", *SWEEP),
        *("training.tokens=1.8e4", "training.checkpoint_tokens=100", "tracking=none", "name=it"),
    )


@pytest.fixture(scope="module")
def uninterrupted(arguments: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    code, said = finish(start(folder, *arguments))
    assert code == 0, said
    return folder / "outputs" / "it"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def one_line(said: str) -> str:
    """The error, which is one line, and no traceback."""
    assert "Traceback" not in said, said
    (line,) = [line for line in said.splitlines() if line.startswith("sae-sweep: error: ")]
    return line


def steps_resumed_at(said: str) -> list[int]:
    return [int(step.replace(",", "")) for step in re.findall(r"resuming at step ([\d,]+) of", said)]


def test_many_kills(arguments: tuple[str, ...], uninterrupted: Path, tmp_path: Path, found: dict[str, Any]) -> None:
    random, sweep = Random(11), tmp_path / "outputs" / "it"
    in_writing, resumed, kills = 0, [], 0
    while kills < KILLS:
        process = start(tmp_path, *arguments)
        if not ended_at(process, sweep, random, signal.SIGKILL):
            pytest.fail("it finished before it was killed often enough")
        kills += 1
        code, said = finish(process)
        assert code == -signal.SIGKILL, said
        in_writing += being_written(sweep)
        resumed += steps_resumed_at(said)
    code, said = finish(start(tmp_path, *arguments))
    assert code == 0, said
    assert_same(sweep, uninterrupted)
    assert in_writing >= 3
    found["kills"] = {
        "kills": kills,
        "in the writing of a checkpoint": in_writing,
        "resumed at steps": resumed + steps_resumed_at(said),
        "files that are the same bit for bit": len(written(sweep)),
    }


def stopped(folder: Path, *arguments: str) -> Path:
    """A sweep told to stop after it has left a few checkpoints."""
    sweep = folder / "outputs" / "it"
    process = start(folder, *arguments)
    assert wait(process, lambda: checkpoints(sweep) > 5)
    process.send_signal(signal.SIGTERM)
    code, said = finish(process)
    assert code == 128 + signal.SIGTERM, said
    return sweep


def test_who_looks_on_and_who_would_train_too(
    arguments: tuple[str, ...], tmp_path: Path, found: dict[str, Any]
) -> None:
    sweep = tmp_path / "outputs" / "it"
    first = start(tmp_path, *arguments)
    assert wait(first, lambda: checkpoints(sweep) > 5)
    code, said = finish(start(tmp_path, *arguments))
    assert code == 2, said
    line = one_line(said)
    assert f"pid {first.pid}, since 2" in line
    code, said = finish(start(tmp_path, "status", str(sweep), "--json"))
    assert code == 0, said
    status = json.loads(said)
    assert status["holder"]["pid"] == first.pid
    assert status["checkpoint_age"] < 60
    assert [member["state"] for member in status["members"]] == ["running"] * 3
    assert all(0 < member["step"] < member["steps"] == 375 for member in status["members"])
    first.send_signal(signal.SIGUSR2)
    code, said = finish(first)
    assert code == 128 + signal.SIGUSR2, said
    code, said = finish(start(tmp_path, "status", str(sweep)))
    assert code == 0, said
    assert "nobody trains here, last checkpoint " in said.splitlines()[0]
    assert said.count(" interrupted ") == 3
    found["a second process"] = re.sub(r"host .*;", "host .., pid .., since ..;", line)


@pytest.mark.parametrize("damage", ["truncated", "flipped byte"])
def test_a_damaged_checkpoint(
    damage: str, arguments: tuple[str, ...], uninterrupted: Path, tmp_path: Path, found: dict[str, Any]
) -> None:
    sweep = stopped(tmp_path, *arguments)
    newest = max(path for path in sweep.glob(".state/*/*") if path.name.isdecimal())
    file = min(newest.glob("*.safetensors"))
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 1
    file.write_bytes(contents if damage == "flipped byte" else contents[: len(contents) // 2])
    code, said = finish(start(tmp_path, *arguments))
    assert code == 0, said
    (line,) = [line for line in said.splitlines() if "is damaged" in line]
    assert_same(sweep, uninterrupted)
    found[damage] = line.replace(str(tmp_path), "").replace(newest.name, "N")


def fill(file: Path) -> None:
    with file.open("wb") as opened:
        while True:
            opened.write(bytes(4096))
            opened.flush()


@pytest.mark.parametrize("room", [0, 200_000])
def test_a_full_disk(
    room: int, arguments: tuple[str, ...], uninterrupted: Path, small_disk: Path, found: dict[str, Any]
) -> None:
    sweep = stopped(small_disk, *arguments)
    before = {name: contents for name, contents in written(sweep).items() if name.endswith("metrics.jsonl")}
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        fill(ballast)
    with ballast.open("rb+") as file:
        file.truncate(ballast.stat().st_size - room)
    code, said = finish(start(small_disk, *arguments))
    assert code in (1, 2), said
    line = one_line(said)
    assert "No space left on device" in line
    for name, contents in before.items():
        left = (sweep / name).read_bytes()
        assert contents.startswith(left) or left.startswith(contents)
    ballast.unlink()
    code, said = finish(start(small_disk, *arguments))
    assert code == 0, said
    assert_same(sweep, uninterrupted)
    found[f"full disk, {room} bytes left"] = line.replace(str(small_disk), "")


def test_a_folder_that_cannot_be_written_to(
    arguments: tuple[str, ...], uninterrupted: Path, small_disk: Path, found: dict[str, Any]
) -> None:
    sweep = stopped(small_disk, *arguments)
    before = written(sweep)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    code, said = finish(start(small_disk, *arguments))
    assert code == 2, said
    line = one_line(said)
    assert "Read-only file system" in line or "cannot be written to" in line
    assert written(sweep) == before
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    code, said = finish(start(small_disk, *arguments))
    assert code == 0, said
    assert_same(sweep, uninterrupted)
    found["read-only folder"] = line.replace(str(small_disk), "")


def test_a_tracking_server_that_refuses(
    arguments: tuple[str, ...], uninterrupted: Path, tmp_path: Path, found: dict[str, Any]
) -> None:
    home = {f"WANDB_{name}_DIR": str(tmp_path / "home") for name in ("CONFIG", "CACHE", "DATA")}
    refused = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0123456789" * 4, **home}
    code, said = finish(start(tmp_path, *arguments, "tracking=online", **refused))
    assert code == 0, said
    lines = [line for line in said.splitlines() if "given up" in line]
    assert len(lines) in (1, 2), said  # the members', and the sweep's own
    for name, contents in written(uninterrupted).items():
        if name.split("/")[-1] not in ("config.yaml", "report.html"):
            assert (tmp_path / "outputs" / "it" / name).read_bytes() == contents, name
    found["refused tracking server"] = lines[0]


def test_a_member_that_diverges(
    arguments: tuple[str, ...], uninterrupted: Path, tmp_path: Path, found: dict[str, Any]
) -> None:
    """A bank of its own, so that the others sum as they did without it."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "wild.yaml").write_text(WILD)
    wild = ("--config-dir", str(tmp_path / "mine"), "+experiment=wild")
    mine = [each for each in arguments if not each.startswith(("sae=", "sae.l0=", "training.lr="))]
    code, said = finish(start(tmp_path, *wild, *mine))
    assert code == 1, said
    (line,) = [line.strip() for line in said.splitlines() if line.startswith("  jumprelu") and "diverged" in line]
    sweep = tmp_path / "outputs" / "it"
    for file in ("metrics.json", "metrics.jsonl", "sae_weights.safetensors"):
        for label in ("gated-l0_4-w40", "standard-l0_4-w40", "batchtopk-l0_4-w40"):
            assert (sweep / label / file).read_bytes() == (uninterrupted / label / file).read_bytes()
    members = json.loads((sweep / "sweep.json").read_text())["members"].values()
    assert sorted(entry["state"] for entry in members) == ["failed", "finished", "finished", "finished"]
    found["lr 1e6"] = line
