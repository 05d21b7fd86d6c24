"""Whatever is given: an exit code that means something, one line where it is refused, nothing written then."""

import json
import os
import re
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from sae_sweep.cli import main
from sae_sweep.folder.files import write_json_atomic
from tests.e2e.evidence import machine
from tests.e2e.told import refusal
from tests.fuzz.cases import SMALL, Case, Sound, case

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
MOST_SECONDS, MOST_BYTES = 60, 2 * 2**30
OUT = Path(__file__).parents[1] / "evidence" / "fuzz.json"


@dataclass
class Found:
    """What came of some cases."""

    codes: Counter[str] = field(default_factory=Counter)
    """By kind and exit code."""
    longest: float = 0.0
    """Seconds of one case."""


@contextmanager
def bounded() -> Iterator[None]:
    """Nothing in here may take longer, or more memory on top of what is there."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, old = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, _too_long)
    resource.setrlimit(resource.RLIMIT_AS, (size + MOST_BYTES, before[1]))
    signal.alarm(MOST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _too_long(*_: Any) -> None:
    raise AssertionError(f"over {MOST_SECONDS} seconds")


Check = Callable[[int, Found], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, llama_folder: Path) -> Sound:
    """A model, and a finished sweep on it, whose paths begin where a command is given."""
    folder, before = tmp_path_factory.mktemp("sound"), Path.cwd()
    (folder / "model").symlink_to(llama_folder)
    (folder / "a.txt").write_text("".join(f"Some words, and {number} more of them.\n" for number in range(200)))
    os.chdir(folder)
    try:
        GlobalHydra.instance().clear()
        data = ("data=text", "data.path=a.txt", "output_dir=.", "sae=topk,gated,random", "sae.l0=3")
        assert main([*SMALL, *data]) == 0
    finally:
        os.chdir(before)
    return Sound(llama_folder, folder / "x")


@pytest.fixture
def check(tmp_path: Path, sound: Sound, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Check:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def checked(seed: int, found: Found) -> None:
        folder = tmp_path / str(seed)
        folder.mkdir()
        monkeypatch.chdir(folder)
        GlobalHydra.instance().clear()
        _run(seed, case(seed), folder, found)

    def _run(seed: int, given: Case, folder: Path, found: Found) -> None:
        given.prepare(folder, sound)
        before = sorted(folder.rglob("*"))
        capfd.readouterr()
        start = monotonic()
        with bounded():
            code = main(given.arguments)
        out, err = capfd.readouterr()
        seconds = monotonic() - start
        found.longest = max(found.longest, seconds)
        found.codes[f"{given.kind}: {code}"] += 1
        what = f"seed {seed}: {given.arguments} gave {code}: {out[-300:]!r} {err[-900:]!r}"
        assert code in (0, 1, 2), what
        assert seconds < MOST_SECONDS, what
        assert not CONTROL.search((out + err).replace("\r", "")), what
        said = refusal(err)
        assert code != 2 or (said.count("\n") == 1 and said.startswith("sae-sweep: error: ") and len(said) < 2000), what
        assert code != 1 or "memory is used up" not in said, what
        assert code != 2 or sorted(folder.rglob("*")) == before, what

    return checked


@pytest.mark.parametrize("tens", range(10))
def test_ten_cases(tens: int, check: Check) -> None:
    found = Found()
    for seed in range(10 * tens, 10 * tens + 10):
        check(seed, found)


@pytest.mark.evidence
@pytest.mark.parametrize("hundred", range(1, 21))
def test_a_hundred_cases(hundred: int, check: Check) -> None:
    found, begun = Found(), monotonic()
    for seed in range(100 * hundred, 100 * hundred + 100):
        check(seed, found)
    entries: dict[str, Any] = json.loads(OUT.read_text()) if OUT.is_file() else {}
    pieces = entries.get("pieces", {})
    pieces[f"seeds {100 * hundred} to {100 * hundred + 99}"] = {
        "exit codes by kind": dict(sorted(found.codes.items())),
        "longest case, seconds": round(found.longest, 1),
        "seconds": round(monotonic() - begun),
    }
    total = sum(sum(piece["exit codes by kind"].values()) for piece in pieces.values())
    ordered = dict(sorted(pieces.items(), key=lambda item: int(item[0].split()[1])))
    write_json_atomic(OUT, {"cases": total, "pieces": ordered, "machine": machine()})
