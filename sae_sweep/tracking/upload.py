"""Sending a sweep to wandb's server, however it was tracked, from its folder alone.

Each run is written as wandb would have written it offline, with the times of times.jsonl, and handed to `wandb sync`,
but for the steps that the server has of it: runs keep their ids. Frontier, report and artifacts follow.
"""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.errors import ConfigError
from sae_sweep.folder import names
from sae_sweep.tracking.past import PastRun, past_runs
from sae_sweep.tracking.runs import SWEEP, FrontierTable
from sae_sweep.tracking.trackers.wandb import WandbRuns, say, server_address, unready
from sae_sweep.tracking.wandb_writing import write_run


def upload(folder: Path, asked: TrackingConfig, tables: Sequence[FrontierTable]) -> None:
    """Send every member that has a line, and the sweep with its frontier. Raises ConfigError where nothing can be
    sent."""
    if why := unready():
        raise ConfigError(f"upload: {why}")
    runs = list(past_runs(folder, asked))
    with TemporaryDirectory(prefix="sae-sweep-upload-") as place:
        files = [write_run(Path(place), folder, one, asked, server_address()) for one in runs]
        words = [sys.executable, "-m", "wandb", "sync", *(str(file.parent) for file in files)]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        lost = [file for file in files if not file.with_name(f"{file.name}.synced").exists()]
    if lost:
        told = (done.stdout.strip().splitlines() or ["no answer"])[-1]
        raise ConfigError(
            f"upload: {len(lost)} of {len(files)} runs were not taken ({told}); the same command tries again"
        )
    _add_files(folder, runs, asked, tables)
    say(f"sent {len(runs)} runs of {folder} to project {asked.project}")


def _add_files(folder: Path, runs: Iterable[PastRun], asked: TrackingConfig, tables: Sequence[FrontierTable]) -> None:
    """The frontier, the report, and members' folders where they are asked for."""
    opened = WandbRuns(folder, folder.name, asked)
    for past in runs:
        label, kept = past.run.label, list[Path]()
        if label == SWEEP:
            kept = [file for file in [folder / names.REPORT] if file.is_file()]
        elif asked.artifacts and past.exit_code == 0:
            kept = [folder / label]
        if not kept:
            continue
        opened.begin(past.run, inf)
        if label == SWEEP:
            opened.frontier(tables)
        opened.finish(label, past.summary, {}, kept)
