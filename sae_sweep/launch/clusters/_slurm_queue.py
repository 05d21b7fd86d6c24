"""What SLURM says of jobs: `squeue` of those that wait or run, `sacct` of those that have ended. It may say nothing."""

import subprocess
from collections.abc import Sequence

from sae_sweep.errors import ConfigError
from sae_sweep.launch.clusters import Verdict

TIMEOUT = 30.0
"""Seconds that a command of SLURM's may take."""
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING", "SUSPENDED")
RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT", "RESIZING", "SIGNALING", "STOPPED")


GONE = Verdict("over", "GONE")
"""Of a job that the queue does not have any more, where no accounting tells how it ended."""
UNTOLD = Verdict("untold", "UNKNOWN", "SLURM cannot be asked")


def ask_queue(jobs: Sequence[str]) -> dict[str, Verdict]:
    """By job id (`17`, or `17_0` of an array)."""
    if not jobs:
        return {}
    # Asked for by name, a job that SLURM has forgotten would be an error; so all of one's own are.
    listed = _lines("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%F_%K|%T|%r")
    if listed is None:
        return dict.fromkeys(jobs, UNTOLD)
    found: dict[str, Verdict] = {}
    for line in (line for line in listed if "|" in line):
        job, place, state, reason = line.split("|", 3)
        verdict = _verdict(state, None if reason == "None" else reason)
        found |= {job: verdict, place: verdict}
    said = {job: found.get(job, GONE) for job in jobs}
    gone = [job for job, verdict in said.items() if verdict is GONE]
    return said | _ended(gone)


def _ended(jobs: Sequence[str]) -> dict[str, Verdict]:
    """What accounting says of jobs that are not in the queue any more."""
    if not jobs:
        return {}
    columns = ("--format=JobID,State", "--parsable2", "--noheader", "--allocations")
    lines = _lines("sacct", *columns, "--jobs", ",".join(jobs)) or []
    ended = dict(line.split("|", 1) for line in lines if "|" in line)
    return {job: _verdict(ended[job], None) for job in jobs if job in ended}


def _verdict(state: str, reason: str | None) -> Verdict:
    """What SLURM's word for a job's state comes to."""
    if state in WAITING:
        return Verdict("waits", state, reason)
    if state in RUNNING:
        return Verdict("runs", state, reason)
    return Verdict("cancelled" if state.startswith("CANCELLED") else "over", state, reason)


def cancel_jobs(jobs: Sequence[str]) -> None:
    """Cancel jobs. Raises ConfigError where SLURM objects."""
    try:
        result = _run("scancel", *jobs)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"cancel: SLURM cannot be asked: {error}") from error
    if result.returncode:
        raise ConfigError(f"cancel: SLURM refuses: {' '.join(result.stderr.split())}")


def _lines(*command: str) -> list[str] | None:
    try:
        result = _run(*command)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.splitlines() if result.returncode == 0 else None


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
