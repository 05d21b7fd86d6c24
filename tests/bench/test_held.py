"""held.py: what a process and those it starts hold together."""

import subprocess
import sys

import pytest

from scripts.bench.measure import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is read from /proc")

MB = 1_000_000


def held(*lines: str) -> int:
    """What a process says of how much more was held than before these lines, while they ran."""
    program = [
        "import mmap, os",
        "from scripts.bench.held import Held",
        "def told():",
        "    return held.most()",
        "with Held() as held:",
        "    gone = b'x' * 300_000_000",
        "    del gone",
        "    told()",
        "    before = told()",
        *(f"    {line}" for line in lines),
        "    print(told() - before)",
    ]
    command = [sys.executable, "-c", "\n".join(program)]
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


def test_it_is_the_most_since_the_last_question() -> None:
    """300 MB before it are not counted; 100 MB after it are, though they are gone when it is put."""
    assert held("after = b'x' * 100_000_000", "del after") == pytest.approx(100 * MB, rel=0.1)


def beside(made: str) -> list[str]:
    """Lines that start a process which makes something, ask while it has that, and end it."""
    return [
        "ready, go = os.pipe(), os.pipe()",
        "child = os.fork()",
        "if child == 0:",
        f"    {made}",
        "    os.write(ready[1], b'.')",
        "    os.read(go[0], 1)",
        "    os._exit(0)",
        "os.read(ready[0], 1)",
        "while_both = told()",
        "os.write(go[1], b'.')",
        "os.waitpid(child, 0)",
        "told = lambda: while_both",
    ]


def test_a_process_that_was_started_counts() -> None:
    assert held(*beside("own = b'x' * 100_000_000")) == pytest.approx(100 * MB, rel=0.15)


def test_what_both_have_counts_once() -> None:
    shared = ("room = mmap.mmap(-1, 100_000_000)", "room[:] = bytes(100_000_000)", "told()")
    alone, together = held(*shared), held(*shared, *beside("read = sum(room[::4096])"))
    assert together == pytest.approx(alone, abs=20 * MB)
