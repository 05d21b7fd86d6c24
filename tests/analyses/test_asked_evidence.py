"""Every analysis that needs no toy data and no table, of `+experiment=asked`: within two minutes, told as it goes, in
memory that does not grow with tokens, and going on where it was killed."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest
from omegaconf import OmegaConf

from sae_sweep.analyses import ANALYSES

pytestmark = pytest.mark.evidence

NEED_MORE = ("compute_equivalent", "recovery")
"""These are asked of a table, and of toy data."""
NAMES = sorted(name for name in ANALYSES if name not in NEED_MORE)
OPTIONS = {"positions": ["analysis.positions.context=512"]}
SECONDS, GROWTH = 120, 1.15
CODE = """
import resource, sys
from sae_sweep.analyses.session import kept, told
from sae_sweep.cli import main

kept.SAVE_SECONDS = told.PLAIN_SECONDS = 0.0
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print("used", used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3)
sys.exit(code)
"""


@dataclass(frozen=True)
class Done:
    """A command that came to its end."""

    seconds: float
    """By the clock, or of one core: others on the machine make it longer, and not more."""
    megabytes: float
    told: list[str]


def command(root: Path, name: str) -> list[str]:
    return [sys.executable, "-c", CODE, "eval", str(root), "--analysis", name, *OPTIONS.get(name, [])]


def asked_of(root: Path, name: str) -> Done:
    begun = monotonic()
    done = subprocess.run(command(root, name), capture_output=True, text=True, check=False)
    by_the_clock = monotonic() - begun
    assert done.returncode == 0, done.stderr[-2000:]
    seconds, megabytes = map(float, done.stdout.rpartition("used")[2].split())
    return Done(min(by_the_clock, seconds), megabytes, [line for line in done.stderr.splitlines() if " of " in line])


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep, trained."""
    outputs = tmp_path_factory.mktemp("outputs")
    words = ["+experiment=asked", f"output_dir={outputs}", "tracking=none"]
    subprocess.run([sys.executable, "-m", "sae_sweep.cli", *words], capture_output=True, check=True)
    return outputs / "asked"


@pytest.fixture(scope="module")
def longer(asked: Path) -> Path:
    """The same with four times as many held-out tokens, as if it had been trained so."""
    copied = shutil.copytree(asked, asked.parent / "longer")
    for file in copied.glob("*/config.yaml"):
        config = OmegaConf.load(file)
        config.evaluation.tokens *= 4
        OmegaConf.save(config, file)
    return copied


@pytest.mark.parametrize("name", NAMES)
def test_each_analysis(name: str, asked: Path, longer: Path) -> None:
    short, long = asked_of(asked, name), asked_of(longer, name)
    print(f"{name}: {short.seconds:.0f} s, {short.megabytes:.0f} MB; of four times the tokens {long.seconds:.0f} s,")
    print(f"  {long.megabytes:.0f} MB; told {len(short.told)} times, first: {(short.told or ['nothing'])[0]}")
    assert short.seconds < SECONDS
    assert short.told
    assert long.megabytes < GROWTH * short.megabytes + 50
    found = json.loads((asked / "analyses" / f"{name}.json").read_text())
    numbers = [*found["numbers"].values(), *(one for own in found["members"].values() for one in own.values())]
    assert numbers
    assert all(set(one) == {"value", "standard_error", "n", "control"} for one in numbers)


@pytest.mark.parametrize("name", NAMES)
def test_each_goes_on_where_it_was_killed(name: str, asked: Path) -> None:
    """Killed when the second half of what it tells is under way; the numbers are those of one that was not."""
    before = json.loads((asked / "analyses" / f"{name}.json").read_text())
    (asked / "analyses" / f"{name}.json").unlink()
    whole = len(asked_of(asked, name).told)
    (asked / "analyses" / f"{name}.json").unlink()
    process = subprocess.Popen(command(asked, name), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    for number, _ in enumerate(line for line in process.stderr if " of " in line):
        if number >= whole // 2:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert process.returncode == -signal.SIGKILL
    kept = list((asked / ".state" / "analyses").glob("*"))
    again = asked_of(asked, name)
    print(f"{name}: told {whole} times in all, killed half way, {len(again.told)} when it went on; kept {len(kept)}")
    assert json.loads((asked / "analyses" / f"{name}.json").read_text()) == before
    assert len(again.told) < whole or not kept
