"""Every analysis, of `+experiment=asked` or of toy data: within two minutes, told as it goes, in memory that does not
grow with tokens, and going on where it was killed."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from omegaconf import OmegaConf

from sae_sweep.analyses import ANALYSES

pytestmark = pytest.mark.evidence

DEMO_FOLDER = files("sae_sweep") / "assets" / "demo_lm"
NAMES = sorted(ANALYSES)
OPTIONS = {"positions": ["analysis.positions.context=512"]}
TABLE = "compute,ce\n1,8\n10,4\n100,2\n1000,1\n"
"""Of a family of models, lies beside the sweep."""
FEW = ",".join(f"topk-l0_16-{one}" for one in ("w256-L1-s0", "w256-L1-s1", "w512-L1-s0", "w256-L2-s0"))
"""Members that differ in each way that analyses ask for."""
ASKED = ("+experiment=asked",)
OTHERS = {
    "recovery": ("+experiment=toy_hierarchy", "sae=topk,matryoshka", "sae.width=256", "training.tokens=1e5"),
    "diffing": (
        *("name=two", "model=demo", "data=demo", f"site.models=[{DEMO_FOLDER},{DEMO_FOLDER}]"),
        *("sae=topk,batchtopk", "sae.l0=16", "sae.width=256", "training.tokens=1e5"),
    ),
}
"""Sweeps for analyses that need to know the true latents, or compare two models."""
SECONDS, GROWTH = 120, 1.15
SEVERAL_PIECES = {"recovery": 2e4}
"""Tokens, where 5,000 are fewer than are read at a time: 8,192 of a toy's."""
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


def command(root: Path, name: str, *more: str) -> list[str]:
    options = OPTIONS.get(name, [])
    if name == "compute_equivalent":
        options = [f"analysis.{name}.table={root.parent / 'table.csv'}"]
    return [sys.executable, "-c", CODE, "eval", str(root), "--analysis", name, *options, *more]


def few(name: str) -> list[str]:
    """Those of `FEW`; all of another sweep's."""
    return [] if name in OTHERS else ["--member", FEW]


def asked_of(root: Path, name: str, *more: str) -> Done:
    begun = monotonic()
    done = subprocess.run(command(root, name, *more), capture_output=True, text=True, check=False)
    by_the_clock = monotonic() - begun
    assert done.returncode == 0, done.stderr[-2000:]
    seconds, megabytes = map(float, done.stdout.rpartition("used")[2].split())
    return Done(min(by_the_clock, seconds), megabytes, [line for line in done.stderr.splitlines() if " of " in line])


def result(root: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "analyses" / f"{name}.json").read_text())
    return found


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """By analysis, the sweep that it is asked of, trained once."""
    outputs = tmp_path_factory.mktemp("outputs")
    (outputs / "table.csv").write_text(TABLE)

    @cache
    def trained(*asked: str) -> Path:
        words = [*asked, f"output_dir={outputs}", "tracking=none"]
        subprocess.run([sys.executable, "-m", "sae_sweep.cli", *words], capture_output=True, check=True)
        return outputs / asked[0].rpartition("=")[2]

    return lambda name: trained(*OTHERS.get(name, ASKED))


def with_tokens(sweep: Path, tokens: float) -> Path:
    """A copy with so many held-out tokens, as if it had been trained so."""
    copied = shutil.copytree(sweep, sweep.parent / f"{sweep.name}_{tokens:.0f}", dirs_exist_ok=True)
    for file in copied.glob("*/config.yaml"):
        config = OmegaConf.load(file)
        config.evaluation.tokens = tokens
        OmegaConf.save(config, file)
    return copied


@pytest.mark.parametrize("name", NAMES)
def test_each_is_asked_of_the_whole_sweep(name: str, sweeps: Callable[[str], Path]) -> None:
    root = sweeps(name)
    done = asked_of(root, name)
    print(f"{name}: {done.seconds:.0f} s, {done.megabytes:.0f} MB, told {len(done.told)} times: {done.told[:1]}")
    assert done.seconds < SECONDS
    assert done.told
    found = result(root, name)
    numbers = [*found["numbers"].values(), *(one for own in found["members"].values() for one in own.values())]
    assert numbers
    assert all(set(one) == {"value", "standard_error", "n", "control"} for one in numbers)
    assert found["figure"] is not None


@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_tokens(name: str, sweeps: Callable[[str], Path]) -> None:
    few_tokens = SEVERAL_PIECES.get(name, 5e3)
    asked = [asked_of(with_tokens(sweeps(name), tokens), name, *few(name)) for tokens in (few_tokens, 4 * few_tokens)]
    short, long = asked
    print(f"{name}: {short.megabytes:.0f} MB of {few_tokens:,.0f} tokens, {long.megabytes:.0f} MB of four times that")
    assert long.megabytes < GROWTH * short.megabytes


@pytest.mark.parametrize("name", NAMES)
def test_each_goes_on_where_it_was_killed(name: str, sweeps: Callable[[str], Path]) -> None:
    """Killed half way through what it tells; the numbers are those of one that was not."""
    root = with_tokens(sweeps(name), 1e4)
    whole, before = len(asked_of(root, name, *few(name)).told), result(root, name)
    (root / "analyses" / f"{name}.json").unlink()
    words = command(root, name, *few(name))
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    for number, _ in enumerate(line for line in process.stderr if " of " in line):
        if number >= whole // 2:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    kept = (root / ".state" / "analyses" / f"{name}.safetensors").is_file()
    again = asked_of(root, name, *few(name))
    print(f"{name}: told {whole} times in all, {len(again.told)} times when it went on; something was kept: {kept}")
    assert result(root, name) == before
    assert len(again.told) < whole or not kept
