"""Peak memory of whole runs on a CPU, phase by phase, beside what `sae_sweep/peaks.py` says.

    python scripts/bench/memory.py                              the table of CASES, each in a process of its own
    python scripts/bench/memory.py sae=topk + sae.k=8 + sae.k=9     one case: shared overrides, then each member's

Measured is the largest resident size above the one before the group is opened, after a tiny group was run to load
libraries. Each phase is measured for itself. Above all a case should fill hundreds of MB: what glibc keeps of small
blocks is noise of some tens of MB. Linux only.
"""

import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from scripts.bench.measure import ROOT

DEMO = "evaluation.tokens=8192 training.tokens=4096 training.batch_size=2048"
TOY = "data=toy evaluation.tokens=4096 training.tokens=8192 training.batch_size=4096"
CASES = {
    "topk, demo model": f"{DEMO} sae=topk sae.k=32 sae.width=32768",
    "three sites, demo model": f"{DEMO} sae=topk sae.k=32 sae.width=16384"
    " data.block_rows=1024 + site.layer=1 + site.layer=2 + site.layer=3",
    "four gated, demo model": f"{DEMO} sae=gated sae.width=16384 + sae.l1=1 + sae.l1=2 + sae.l1=3 + sae.l1=4",
    "standard": f"{TOY} sae=standard sae.l1=1 sae.width=16384",
    "gated, L0 asked for": f"{TOY} sae=gated sae.l0=32 sae.width=8192",
    "free decoder": f"{TOY} sae=gated_decoder_norm sae.l1=1 sae.width=8192",
    "batchtopk": f"{TOY} sae=batchtopk sae.k=32 sae.width=16384",
    "matryoshka": f"{TOY} sae=matryoshka sae.k=32 sae.width=16384",
    "jumprelu": f"{TOY} sae=jumprelu sae.l0_coefficient=0.1 sae.width=8192",
    "jumprelu of anthropic": f"{TOY} sae=jumprelu_anthropic sae.l0_coefficient=0.1 sae.width=8192",
    "p_anneal": f"{TOY} sae=p_anneal sae.l1=1 sae.width=8192",
    "april": f"{TOY} sae=standard_april sae.l1=1 sae.width=8192",
    "small batch, eight members": "data=toy evaluation.tokens=4096 training.tokens=512 training.batch_size=256"
    " sae=standard sae.width=16384" + "".join(f" + sae.l1={n}" for n in range(1, 9)),
    "large block": f"{TOY} sae=topk sae.k=32 sae.width=1024 data.block_rows=4096",
}
TINY = (
    "sae=gated sae.width=64 sae.l0=4 training.tokens=512 training.batch_size=256 data.block_rows=16"
    " evaluation.tokens=512"
)
ALWAYS = "model.device=cpu tracking=none"


def measured(overrides: str) -> dict[str, Any]:
    """Bytes of one case, run in this process: of each phase and of the whole, found and estimated."""
    import torch

    from sae_sweep.estimates import estimate
    from sae_sweep.peaks import phases
    from sae_sweep.plan import plan_sweep

    torch.set_num_threads(1)
    with redirect_stderr(StringIO()):
        _run(TINY)
        found = _run(overrides)
    (group,) = plan_sweep(_configs(overrides)).groups
    said = {one.phase: one.total for one in phases(group, group.banks)}
    peak = estimate(group).peak
    return {
        "overrides": overrides,
        "measured": max(found.values()),
        "estimated": peak.total,
        "phases": {phase: {"measured": found.get(phase, 0), "estimated": size} for phase, size in said.items()},
        "parts": {"phase": peak.phase, **peak.parts},
    }


def _configs(overrides: str) -> list[Any]:
    from hydra import compose, initialize_config_dir

    from sae_sweep.cli import config_folder
    from sae_sweep.reading import member_config

    shared, *members = (part.split() for part in overrides.split(" + "))
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return [member_config(compose("config", [*ALWAYS.split(), *shared, *own])) for own in members or [[]]]


def _run(overrides: str) -> dict[str, int]:
    """Run one group; the largest resident size of each phase above the one before it was opened."""
    from sae_sweep.plan import plan_sweep
    from sae_sweep.runs import SweepFolder
    from sae_sweep.training import judging
    from sae_sweep.training.group import GroupRun
    from sae_sweep.training.opening import open_group

    plan = plan_sweep(_configs(overrides))
    phases = {
        "training": (GroupRun, "_train"),
        "trimming": (judging.Judging, "_trim"),
        "judging": (judging.Judging, "judge"),
    }
    found: dict[str, int] = {}
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    base = _resident("VmRSS")
    with tempfile.TemporaryDirectory() as folder, _watched(phases, found):
        _reset()
        run = open_group(plan.groups[0])
        found["opening"] = _resident("VmHWM")
        sweep = SweepFolder(Path(folder) / "memory")
        sweep.begin(plan)
        reasons = [result.reason for result in run.run(sweep).values() if result.reason is not None]
    if reasons:
        raise RuntimeError(reasons[0])
    return {phase: size - base for phase, size in found.items()}


@contextmanager
def _watched(phases: dict[str, tuple[Any, str]], found: dict[str, int]) -> Iterator[None]:
    """While this lasts, `found` learns the largest resident size in each of the methods that phases are."""
    real = {phase: getattr(cls, name) for phase, (cls, name) in phases.items()}
    inside = ["opening"]

    def note() -> None:
        found[inside[-1]] = max(found.get(inside[-1], 0), _resident("VmHWM"))
        _reset()

    def watching(phase: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            note()
            inside.append(phase)
            result = method(*arguments)
            if phase == "judging":
                result = list(result)  # each judgement as it is made
            note()
            inside.pop()
            return result

        return run

    for phase, (cls, name) in phases.items():
        setattr(cls, name, watching(phase, real[phase]))
    try:
        yield
    finally:
        for phase, (cls, name) in phases.items():
            setattr(cls, name, real[phase])


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def _reset() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def in_child(overrides: str) -> dict[str, Any]:
    """`measured` in a process of its own."""
    command = [sys.executable, __file__, "--json", *overrides.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{overrides}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def line(name: str, case: dict[str, Any]) -> str:
    """One line of the table, in MB."""
    off = case["estimated"] / case["measured"] - 1
    each = ", ".join(
        f"{phase} {numbers['measured'] / 1e6:.0f}/{numbers['estimated'] / 1e6:.0f}"
        for phase, numbers in case["phases"].items()
    )
    return f"{name:28} {case['measured'] / 1e6:7.0f} {case['estimated'] / 1e6:7.0f} {off:+6.1%}   {each}"


def main(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["--json"]:
        print(json.dumps(measured(" ".join(arguments[1:]))))
        return
    cases = {" ".join(arguments): " ".join(arguments)} if arguments else CASES
    print(f"{'MB':28} measured estimated  off   each phase, measured/estimated")
    for name, overrides in cases.items():
        print(line(name, in_child(overrides)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
