"""What SLURM says of jobs: `squeue` of those that wait or run, `sacct` of those that have ended. It may say nothing."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from shutil import which

TIMEOUT = 30.0
"""Seconds that a command of SLURM's may take."""
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING", "SUSPENDED")
RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT", "RESIZING", "SIGNALING", "STOPPED")


@dataclass(frozen=True)
class Verdict:
    """What has become of one job."""

    state: str
    """In SLURM's words."""
    reason: str | None
    """Why it waits."""

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    @property
    def runs(self) -> bool:
        return self.state in RUNNING

    @property
    def over(self) -> bool:
        return not self.waits and not self.runs

    @property
    def cancelled(self) -> bool:
        return self.state.startswith("CANCELLED")


GONE = Verdict("GONE", None)
"""Of a job that the queue does not have any more, where no accounting tells how it ended."""


def ask_queue(jobs: Sequence[str]) -> dict[str, Verdict]:
    """By job id (`17`, or `17_0` of an array); empty where SLURM cannot be asked."""
    if not jobs or which("squeue") is None:
        return {}
    # Asked for by name, a job that SLURM has forgotten would be an error; so all of one's own are.
    listed = _lines("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%F_%K|%T|%r")
    if listed is None:
        return {}
    found: dict[str, Verdict] = {}
    for line in (line for line in listed if "|" in line):
        job, place, state, reason = line.split("|", 3)
        verdict = Verdict(state, None if reason == "None" else reason)
        found |= {job: verdict, place: verdict}
    said = {job: found.get(job, GONE) for job in jobs}
    gone = [job for job, verdict in said.items() if verdict is GONE]
    return said | _ended(gone)


def _ended(jobs: Sequence[str]) -> dict[str, Verdict]:
    """What accounting says of jobs that are not in the queue any more."""
    if not jobs or which("sacct") is None:
        return {}
    columns = ("--format=JobID,State", "--parsable2", "--noheader", "--allocations")
    lines = _lines("sacct", *columns, "--jobs", ",".join(jobs)) or []
    ended = dict(line.split("|", 1) for line in lines if "|" in line)
    return {job: Verdict(ended[job], None) for job in jobs if job in ended}


def cancel_jobs(jobs: Sequence[str]) -> str | None:
    """Cancel jobs; what SLURM objects to, None where it does not."""
    result = _run("scancel", *jobs)
    return None if result.returncode == 0 else " ".join(result.stderr.split())


def _lines(*command: str) -> list[str] | None:
    try:
        result = _run(*command)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.splitlines() if result.returncode == 0 else None


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
