"""What `test_survival.py` shows, at length: many kills, and the faults of disks, checkpoints, servers and members.

Writes what happened to tests/evidence/survival.json. SAE_SWEEP_SOAK_MINUTES says how long the soak lasts.
"""

import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import monotonic

import pytest

from sae_sweep.plan.memory import peak
from sae_sweep.plan.placement import GB, plan_passes
from tests.e2e.evidence import record
from tests.e2e.kills import SWEEP, assert_same, being_written, checkpoints, ended_at, finish, start, wait, written
from tests.e2e.soak import Watch, strays
from tests.evaluation.groups import planned

pytestmark = pytest.mark.evidence

KILLS = 20
SOAK_MINUTES = float(os.environ.get("SAE_SWEEP_SOAK_MINUTES", "30"))
FLAT = 1.1
"""A process of the soak's second half may hold so much more than the largest of the first."""
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


@pytest.fixture(scope="module")
def arguments(llama_folder: Path, text_file: Path) -> tuple[str, ...]:
    return (
        *("model=local", f"model.path={llama_folder}", "data=text", f"data.path={text_file}", *SWEEP),
        *("training.tokens=1.8e4", "training.checkpoint_tokens=100", "tracking=none", "name=it"),
        "training.milestones=[700,5e3,1.1e4]",
    )


@pytest.fixture(scope="module")
def layouts(arguments: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """What may change between two runs of one sweep, as further arguments."""
    folder = tmp_path_factory.mktemp("layouts")
    each = ("gated", "standard", "batchtopk")
    own = [one for one in arguments if not one.startswith(("sae=", "name="))]
    group = planned([f"output_dir={folder}", *own], {name: [f"sae={name}"] for name in each}).group
    needed = [plan_passes(group, None, None)[0].waves[0].peak_bytes]
    needed += [peak(group, [part]).total for bank in group.banks for part in bank.chunks()]
    turns = f"launcher.memory_gb={max(needed[1:]) / GB!r}"
    (one,) = plan_passes(group, float(turns.partition("=")[2]) * GB, None)
    assert len(one.waves) > 1, needed
    cache = f"data.cache={folder / 'kept'}"
    return {"together": (), f"{len(one.waves)} waves": (turns,), "from data.cache": (cache,), "both": (turns, cache)}


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


def test_many_kills(
    arguments: tuple[str, ...], layouts: dict[str, tuple[str, ...]], uninterrupted: Path, tmp_path: Path
) -> None:
    """From one run to the next members take turns or share the device, and blocks are harvested or read."""
    random, sweep = Random(11), tmp_path / "outputs" / "it"
    in_writing, resumed, kills, under = 0, [], 0, Counter[str]()
    while kills < KILLS:
        layout = list(layouts)[kills % len(layouts)]
        process = start(tmp_path, *arguments, *layouts[layout])
        if not ended_at(process, sweep, random, signal.SIGKILL):
            pytest.fail("it finished before it was killed often enough")
        kills += 1
        under[layout] += 1
        code, said = finish(process)
        assert code == -signal.SIGKILL, said
        in_writing += being_written(sweep)
        resumed += steps_resumed_at(said)
    code, said = finish(start(tmp_path, *arguments))
    assert code == 0, said
    assert_same(sweep, uninterrupted)
    assert in_writing >= 3
    found = {
        "kills": kills,
        "of runs with members": dict(under),
        "in the writing of a checkpoint": in_writing,
        "resumed at steps": resumed + steps_resumed_at(said),
        "files that are the same bit for bit": len(written(sweep)),
    }
    record("kills", found)


def test_told_twice(arguments: tuple[str, ...], uninterrupted: Path, tmp_path: Path) -> None:
    """The second SIGTERM ends it at once, checkpoint or not; what was there before is gone on from."""
    sweep = tmp_path / "outputs" / "it"
    for _ in range(2):
        process, before = start(tmp_path, *arguments), checkpoints(sweep)
        assert wait(process, lambda before=before: checkpoints(sweep) > before + 3)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        code, said = finish(process)
        assert code == 128 + signal.SIGTERM, said
        assert "Traceback" not in said
    code, said = finish(start(tmp_path, *arguments))
    assert code == 0, said
    assert len(steps_resumed_at(said)) == 1
    assert_same(sweep, uninterrupted)
    record("SIGTERM twice, and again", {"resumed at step": steps_resumed_at(said)[0]})


def test_an_impossible_memory_budget(arguments: tuple[str, ...], tmp_path: Path) -> None:
    code, said = finish(start(tmp_path, *arguments, "launcher.memory_gb=0.01"))
    assert code == 2, said
    line = one_line(said)
    assert "launcher.memory_gb=0.01: " in line
    assert list(tmp_path.iterdir()) == []
    record("impossible memory budget", line)


def test_soak(
    arguments: tuple[str, ...], layouts: dict[str, tuple[str, ...]], uninterrupted: Path, tmp_path: Path
) -> None:
    """Sweeps begun, ended at any moment by any signal and gone on with, one after the other."""
    random, end, began = Random(5), monotonic() + 60 * SOAK_MINUTES, monotonic()
    numbers, peaks, ends, rounds = (
        (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2),
        [],
        Counter[str](),
        0,
    )
    while monotonic() < end:
        folder = tmp_path / f"round{rounds}"
        folder.mkdir()
        sweep, finished = folder / "outputs" / "it", False
        while not finished:
            further = layouts[random.choice(list(layouts))] if monotonic() < end else ()
            process = start(folder, *arguments, *further)
            with Watch(process.pid) as watch:
                number = random.choice(numbers)
                ended = monotonic() < end and random.random() < 0.8 and ended_at(process, sweep, random, number)
                code, said = finish(process)
            peaks.append(watch.peak)
            assert "Traceback" not in said
            assert code == ((-number if number == signal.SIGKILL else 128 + number) if ended else 0), said
            ends[number.name if ended else "to its end"] += 1
            finished = code == 0
            assert strays(folder) == []
        assert [path for path in folder.rglob("*") if path.name.endswith(".tmp")] == []
        same(sweep, uninterrupted)
        rounds += 1
    half = len(peaks) // 2
    assert max(peaks[half:]) <= FLAT * max(peaks[:half]), peaks
    found = {
        "minutes": round((monotonic() - began) / 60, 1),
        "sweeps trained to their end": rounds,
        "processes ended by": dict(ends),
        "largest memory of a process, first half, MB": round(max(peaks[:half]) / 1e6),
        "largest memory of a process, second half, MB": round(max(peaks[half:]) / 1e6),
        "stray processes": 0,
        "temporary files left": 0,
    }
    record("soak", found)


def same(sweep: Path, expected: Path) -> None:
    """Bit for bit but for config.yaml, which says how the last run shared the machine."""
    found, wanted = (
        {name: contents for name, contents in written(root).items() if not name.endswith("config.yaml")}
        for root in (sweep, expected)
    )
    assert found.keys() == wanted.keys()
    assert [name for name, contents in wanted.items() if found[name] != contents] == []


def stopped(folder: Path, *arguments: str) -> Path:
    """A sweep told to stop after it has left a few checkpoints."""
    sweep = folder / "outputs" / "it"
    process = start(folder, *arguments)
    assert wait(process, lambda: checkpoints(sweep) > 5)
    process.send_signal(signal.SIGTERM)
    code, said = finish(process)
    assert code == 128 + signal.SIGTERM, said
    return sweep


def test_who_looks_on_and_who_would_train_too(arguments: tuple[str, ...], tmp_path: Path) -> None:
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
    record("a second process", re.sub(r"host .*;", "host .., pid .., since ..;", line))


@pytest.mark.parametrize("damage", ["truncated", "flipped byte"])
def test_a_damaged_checkpoint(damage: str, arguments: tuple[str, ...], uninterrupted: Path, tmp_path: Path) -> None:
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
    record(damage, line.replace(str(tmp_path), "").replace(newest.name, "N"))


def fill(file: Path) -> None:
    with file.open("wb") as opened:
        while True:
            opened.write(bytes(4096))
            opened.flush()


@pytest.mark.parametrize("room", [0, 200_000])
def test_a_full_disk(room: int, arguments: tuple[str, ...], uninterrupted: Path, small_disk: Path) -> None:
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
    record(f"full disk, {room} bytes left", line.replace(str(small_disk), ""))


def test_a_folder_that_cannot_be_written_to(arguments: tuple[str, ...], uninterrupted: Path, small_disk: Path) -> None:
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
    record("read-only folder", line.replace(str(small_disk), ""))


def test_a_tracking_server_that_refuses(arguments: tuple[str, ...], uninterrupted: Path, tmp_path: Path) -> None:
    home = {f"WANDB_{name}_DIR": str(tmp_path / "home") for name in ("CONFIG", "CACHE", "DATA")}
    refused = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0123456789" * 4, **home}
    code, said = finish(start(tmp_path, *arguments, "tracking=online", **refused))
    assert code == 0, said
    lines = [line for line in said.splitlines() if "given up" in line]
    assert len(lines) in (1, 2), said  # the members', and the sweep's own
    for name, contents in written(uninterrupted).items():
        if name.split("/")[-1] not in ("config.yaml", "report.html"):
            assert (tmp_path / "outputs" / "it" / name).read_bytes() == contents, name
    record("refused tracking server", lines[0])


def test_a_member_that_diverges(arguments: tuple[str, ...], uninterrupted: Path, tmp_path: Path) -> None:
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
    record("lr 1e6", line)
