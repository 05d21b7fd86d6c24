"""The sides of the sweep benchmark: the same members trained by our command, and in one process by each peer."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_sweep.config.schema import DataConfig
from scripts.bench.measure import ROOT
from scripts.bench.peers import client
from scripts.bench.peers.client import PEERS, Environment, Unavailable, environment_variables
from scripts.bench.sweeps import DICTIONARY, OURS, SAELENS, Sweep


@dataclass(frozen=True)
class Run:
    """One side's whole run."""

    seconds: float
    """Of the whole process, from its start to its end."""
    marks: Mapping[str, Any]
    """When training began and ended, each step (of ours: block) of all members ended, and judging did."""
    folder: Path
    """The members' folders are in it."""

    @property
    def training(self) -> float:
        return float(self.marks["end"] - self.marks["begin"])

    @property
    def judging(self) -> float | None:
        """From the last step on: correcting L0, judging and saving; None of a side that judges nothing."""
        return float(self.marks["judged"] - self.marks["end"]) if "judged" in self.marks else None

    def quarter(self, last: bool) -> float:
        """Seconds that the first or last quarter of the steps took."""
        steps = [self.marks["begin"], *self.marks["steps"]]
        count = max(1, (len(steps) - 1) // 4)
        first = len(steps) - 1 - count if last else 0
        return float(steps[first + count] - steps[first])


PEER_SCRIPTS: Mapping[str, tuple[Environment, Path]] = {
    SAELENS: (client.SAELENS, PEERS / "saelens_sweep.py"),
    DICTIONARY: (client.DICTIONARY, PEERS / "dictionary_sweep.py"),
}


def run_side(side: str, sweep: Sweep, work: Path, name: str, rows: Path, data: DataConfig) -> Run:
    """Ours or a peer's. Raises Unavailable where it cannot be run here, or failed."""
    print(f"running {name}", file=sys.stderr)
    return run_ours(sweep, work, name) if side == OURS else run_peer(side, sweep, work, name, rows, data)


def run_ours(sweep: Sweep, work: Path, name: str) -> Run:
    """The whole command: tokenising, calibration, training, evaluation, report."""
    marks = work / f"{name}.marks.json"
    command = [sys.executable, str(ROOT / "scripts" / "bench" / "clocked_command.py"), str(marks)]
    took = _run([*command, *sweep.overrides(name, work)], "our command")
    return Run(took, json.loads(marks.read_text(encoding="utf-8")), work / name)


def run_peer(side: str, sweep: Sweep, work: Path, name: str, rows: Path, data: DataConfig) -> Run:
    """The whole script: loading, scale estimate, training, saving; it evaluates nothing and tokenises nothing."""
    environment, script = PEER_SCRIPTS[side]
    if not environment.python.exists():
        raise Unavailable(f"{environment.folder.name} is missing; --install-peers makes it")
    marks, request = work / f"{name}.marks.json", work / f"{name}.request.json"
    files = {"rows": str(rows), "marks": str(marks), "output": str(work / name)}
    request.write_text(json.dumps(sweep.request(side, data) | files), encoding="utf-8")
    took = _run([str(environment.python), str(script), str(request)], side)
    return Run(took, json.loads(marks.read_text(encoding="utf-8")), work / name)


def _run(command: Sequence[str], who: str) -> float:
    """Seconds that a command took. Raises Unavailable with the last thing it said where it failed."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment_variables(), capture_output=True, text=True, check=False)
    took = time.perf_counter() - start
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{who} failed: {said[-1] if said else 'it said nothing'}")
    return took
