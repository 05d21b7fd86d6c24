"""Peak memory of whole runs, phase by phase, beside what `sae_sweep/plan/memory.py` says.

    python scripts/bench/memory.py --out memory.json            the table of CASES, each in a process of its own
    python scripts/bench/memory.py sae=topk + sae.k=8 + sae.k=9     one case: shared overrides, then each member's

Measured is all that the run's process and those it starts hold at a time (`held.py`), libraries too; on CUDA what torch
has allocated on the device. Each phase is measured for itself, but what freed blocks of one leave is there in the
next. A case should fill hundreds of MB, since what glibc keeps of small blocks is noise of some tens of MB; and take
several steps, since those of two cores are at their fullest together in some of them. On a CPU: Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from sae_sweep.config.files import config_of
from sae_sweep.folder.sweep import SweepFolder
from sae_sweep.host import allocator as process
from sae_sweep.plan.groups import Plan, plan_sweep
from sae_sweep.plan.memory import peak, phases
from sae_sweep.training.run import judging
from sae_sweep.training.run.loop import GroupRun
from sae_sweep.training.run.opening import open_group
from scripts.bench.held import Held
from scripts.bench.measure import ROOT, machine, write

DEMO = "evaluation.tokens=8192 training.tokens=16384 training.batch_size=2048"
TOY = "data=toy evaluation.tokens=4096 training.tokens=65536 training.batch_size=4096"
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
    "hierarchical_topk": f"{TOY} sae=hierarchical_topk sae.k=32 sae.width=16384",
    "ortsae": f"{TOY} sae=ortsae sae.k=32 sae.width=16384",
    "gemma scope 2": f"{TOY} sae=jumprelu_gemma_scope_2 sae.l0=32 sae.width=8192",
    "jumprelu": f"{TOY} sae=jumprelu sae.l0_coefficient=0.1 sae.width=8192",
    "jumprelu of anthropic": f"{TOY} sae=jumprelu_anthropic sae.l0_coefficient=0.1 sae.width=8192",
    "p_anneal": f"{TOY} sae=p_anneal sae.l1=1 sae.width=8192",
    "april": f"{TOY} sae=standard_april sae.l1=1 sae.width=8192",
    "three widths": f"{TOY} sae=standard sae.l1=1 + sae.width=4096 + sae.width=8192 + sae.width=16384",
    "small batch, eight members": "data=toy evaluation.tokens=4096 training.tokens=512 training.batch_size=256"
    " sae=standard sae.width=16384" + "".join(f" + sae.l1={n}" for n in range(1, 9)),
    "eight small members": "data=toy evaluation.tokens=4096 training.tokens=2e5 training.batch_size=4096"
    " sae=standard sae.width=1024 data.block_rows=1024" + "".join(f" + sae.l1={n}" for n in range(1, 9)),
    "large block": f"{TOY} sae=topk sae.k=32 sae.width=1024 data.block_rows=4096",
}
ALWAYS = "model.device=cpu tracking=none"


def measured(overrides: str) -> dict[str, Any]:
    """Bytes of one case, run in this process: of each phase and of the whole, found and estimated."""
    process.tune()  # as cli.main does, but here torch is imported before that
    plan = plan_sweep(_configs(overrides))
    with redirect_stderr(StringIO()), Held() as held:
        found = _run(plan, held)
    (group,) = plan.groups
    said = {one.phase: one.total for one in phases(group, group.banks)}
    fullest = peak(group, group.banks)
    return {
        "overrides": overrides,
        "on": _device(),
        "d": group.members[0].d,
        "measured": max(found.values()),
        "estimated": fullest.total,
        "phases": {phase: {"measured": found.get(phase, 0), "estimated": size} for phase, size in said.items()},
        "parts": {"phase": fullest.phase, **fullest.held},
    }


def _configs(overrides: str) -> list[Any]:
    shared, *members = (part.split() for part in overrides.split(" + "))
    return [config_of([*ALWAYS.split(), *shared, *own]) for own in members or [[]]]


def _run(plan: Plan, held: Held) -> dict[str, int]:
    """Run a plan's one group; what was held at most in each phase."""
    watched = {
        "training": (GroupRun, "_train"),
        "trimming": (judging.Judging, "correct"),
        "judging": (judging.Judging, "judge"),
    }
    found: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder, _watched(watched, found, held):
        run = open_group(plan.groups[0])
        found["opening"] = _most(held)
        sweep = SweepFolder(Path(folder) / "memory")
        sweep.begin(plan)
        reasons = [result.reason for result in run.run(sweep).values() if result.reason is not None]
    if reasons:
        raise RuntimeError(reasons[0])
    return found


@contextmanager
def _watched(phases: dict[str, tuple[Any, str]], found: dict[str, int], held: Held) -> Iterator[None]:
    """While this lasts, `found` learns what was held at most in each of the methods that phases are."""
    real = {phase: getattr(cls, name) for phase, (cls, name) in phases.items()}
    inside = ["opening"]

    def note() -> None:
        found[inside[-1]] = max(found.get(inside[-1], 0), _most(held))

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


def _device() -> str:
    """Where members were: the device whose memory is told."""
    return "cuda" if torch.cuda.is_initialized() else "cpu"


def _most(held: Held) -> int:
    if _device() == "cpu":
        return held.most()
    most = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return most


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


def parser() -> argparse.ArgumentParser:
    first, _, rest = (__doc__ or "").partition("\n\n")
    plain = argparse.RawDescriptionHelpFormatter
    found = argparse.ArgumentParser(description=first, epilog=rest, formatter_class=plain)
    found.add_argument("overrides", nargs="*", help="of one case, with + between members (CASES)")
    found.add_argument("--out", type=Path, help="write everything here too, as JSON")
    found.add_argument("--json", action="store_true", help="the one case in this process, as a line of JSON")
    return found


def main(arguments: Sequence[str]) -> None:
    asked = parser().parse_args(arguments)
    own = " ".join(asked.overrides)
    if asked.json:
        print(json.dumps(measured(own)))
        return
    print(f"{'MB':28} measured estimated  off   each phase, measured/estimated")
    found: dict[str, Any] = {}
    for name, overrides in ({own: own} if own else CASES).items():
        found[name] = in_child(overrides)
        print(line(name, found[name]), flush=True)
    facts = machine(torch.device(found[name]["on"]))
    write(asked.out, {"benchmark": "memory", "machine": facts, "cases": found})


if __name__ == "__main__":
    main(sys.argv[1:])
