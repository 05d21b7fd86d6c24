"""wandb: one run per member and one for the sweep. The package is imported only when tracking asks for it."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.config.values import finite
from sae_sweep.host.network import answers
from sae_sweep.tracking.environment import WANDB_MODES
from sae_sweep.tracking.runs import SWEEP, FrontierTable, Histogram, TrackedRun
from sae_sweep.tracking.wandb_agent import asked_of, look_for_agent
from sae_sweep.tracking.wandb_files import cut_offline
from sae_sweep.tracking.wandb_ids import run_id, wandb_folder
from sae_sweep.tracking.wandb_server import rewound

INIT_TIMEOUT = 10.0
"""Seconds. wandb's own is 90; a server that does not answer must not hold up training."""
FINISH_TIMEOUT = 120.0
"""Seconds that one run may take to upload what it still has."""
SECOND = "b"
"""After the id of a run that is kept offline because no server took it."""
_unreached: set[str] = set()
"""Servers that have taken none from this process: they are asked once."""
MOST_TITLE = 63
"""Characters of an alert's."""


def open_runs(sweep_folder: Path, sweep_name: str, config: TrackingConfig) -> "WandbRuns | None":
    """The runs of one process; None where `tracking.mode` is not one of wandb's."""
    return WandbRuns(sweep_folder, sweep_name, config) if config.mode in WANDB_MODES else None


class WandbRuns:
    """The live wandb runs of one process."""

    def __init__(self, sweep_folder: Path, sweep_name: str, config: TrackingConfig) -> None:
        self._folder, self._sweep, self._config = sweep_folder, sweep_name, config
        self._runs: dict[str, Any] = {}
        self._logged: set[str] = set()
        """Of those runs that have something."""
        self._begun = 0
        self._rewinds = True
        """Whether the server takes back steps, as far as is known."""
        look_for_agent()
        if config.mode == "online" and (
            why := "it did not take a run" if server_address() in _unreached else unready()
        ):
            self._go_offline(why)

    def begin(self, run: TrackedRun, step: float) -> int:
        """Open a run; the last step that wandb has of it, -1 for none.

        Its id follows from the sweep and the member, so a resumed member goes on in its own: in a file of its own
        offline, after the steps to come are cut from the earlier ones; online in the same run, taken back to before the
        step where the server can do that.
        """
        self._init(run, step)
        opened = self._runs[run.label]
        if run.job == "train":
            opened.define_metric("tokens")
            opened.define_metric("*", step_metric="tokens")
        if self._config.mode == "online":
            last = int(opened.starting_step) - 1
        else:
            last = cut_offline(wandb_folder(self._folder), str(opened.id), step, but=_file_of(opened))
        if run.label == SWEEP and self._config.mode == "offline":
            say(f"runs are kept offline; `sae-sweep upload {self._folder}` sends them")
        return last

    def log(self, label: str, step: int, moment: float, values: Mapping[str, float]) -> None:
        """Log one step at the moment it was taken."""
        run = self._runs.get(label)
        if run is not None:
            run.log({**values, "_timestamp": moment}, step=step)
            self._logged.add(label)

    def finish(
        self, label: str, summary: Mapping[str, Any], histograms: Mapping[str, Histogram], files: Sequence[Path]
    ) -> None:
        """Close a run with flat summary values, which is what wandb's scatter plots over runs read."""
        import numpy as np
        import wandb

        run = self._runs.get(label)
        if run is None:
            return
        made = {
            name: wandb.Histogram(np_histogram=(np.asarray(one.counts), np.asarray(one.edges)))
            for name, one in histograms.items()
        }
        if made:
            run.log(made, commit=False)
        for path in files:
            run.log_artifact(_artifact(f"{self._sweep}-{path.name}", path))
        self._end(label, summary, exit_code=0)

    def fail(self, label: str, reason: str) -> None:
        """Close the run of a member that will not be finished, with an alert."""
        run = self._runs.get(label)
        if run is not None:
            run.alert(f"{label} failed"[:MOST_TITLE], reason, level="ERROR")
        self._end(label, {"failed": reason}, exit_code=1)

    def frontier(self, tables: Sequence[FrontierTable]) -> None:
        """A table and a scatter plot for each cell, in the run of the sweep."""
        if SWEEP in self._runs:
            for index, table in enumerate(tables):
                _log_table(self._runs[SWEEP], "frontier" if len(tables) == 1 else f"frontier_{index}", table)

    def close(self) -> None:
        """End the runs that are still open as preempted."""
        for label in list(self._runs):
            self._runs[label].mark_preempting()
            self._end(label, {}, exit_code=1)

    def _end(self, label: str, summary: Mapping[str, Any], exit_code: int) -> None:
        run = self._runs.pop(label, None)
        if run is None:
            return
        if label in self._logged:
            # wandb holds back the last step; let go at finish, it would overwrite the final values with that step's own
            run.log({}, commit=True)
        for key, value in summary.items():
            run.summary[key] = finite(value) if isinstance(value, float) else value
        run.finish(exit_code=exit_code)

    def _go_offline(self, why: str) -> None:
        self._config = replace(self._config, mode="offline")
        if (server := server_address()) not in _unreached:
            _unreached.add(server)
            say(f"{why}; runs are kept offline")

    def _init(self, run: TrackedRun, step: float) -> None:
        """Open a run; where the server does not take it, it and all to come are kept offline."""
        trial = asked_of(run)
        identity = trial.pop("run_id", None) or run_id(self._folder, self._sweep, run.identity)
        if self._config.mode == "online" and self._rewinds and step > 0 and isfinite(step):
            where = server_address(), self._config.entity, self._config.project
            self._rewinds = rewound(*where, identity, int(step) - 1)
        try:
            # Offline, an id that exists is not found, and "allow" only warns.
            self._open(run, identity, trial, resume="allow" if self._config.mode == "online" else None)
        except Exception as error:
            if self._config.mode != "online":
                raise
            self._go_offline((str(error).splitlines() or ["no answer"])[0])
            # wandb's helper keeps the run that it could not open, and opens none of that id in another way.
            self._open(run, f"{identity}{SECOND}", trial, resume=None)

    def _open(self, run: TrackedRun, identity: str, trial: Mapping[str, Any], **how: Any) -> None:
        import wandb

        whole, folder = run.label == SWEEP, wandb_folder(self._folder)
        settings = wandb.Settings(
            console="off",
            silent=True,
            x_disable_stats=not whole,  # the machine is looked at once, not for each member
            x_disable_meta=not whole,
            save_code=False,
            disable_git=not whole,
            init_timeout=INIT_TIMEOUT,
            finish_timeout=FINISH_TIMEOUT,
            finish_timeout_raises=True,
            **trial,
        )
        opened = wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            mode="online" if self._config.mode == "online" else "offline",
            id=identity,
            name=run.name,
            group=self._config.group,
            job_type=run.job,
            dir=str(folder),
            config=dict(run.config),
            tags=list(run.tags),
            notes=run.notes,
            reinit="create_new",
            settings=settings,
            **how,
        )
        self._runs[run.label] = opened
        self._begun += 1
        if self._begun == 1 and self._config.mode == "online":
            say(f"group {self._config.group} at {opened.project_url}")


def unready() -> str | None:
    """Why nothing can be sent to wandb's server; None where it may be. On a terminal wandb would ask for a key, and
    without a network wait for minutes."""
    import wandb

    server = server_address()
    if not answers(server):
        return f"{server} does not answer"
    if not wandb.login(host=server, prompt=False, verify=False):
        return "there is no API key (wandb login, or WANDB_API_KEY)"
    return None


def server_address() -> str:
    """The address of wandb's server."""
    import wandb

    return os.environ.get("WANDB_BASE_URL") or str(wandb.setup().settings.base_url)


def _file_of(run: Any) -> Path:
    """The file that a run writes, offline."""
    return Path(run.settings.sync_dir) / f"run-{run.id}.wandb"


def _artifact(name: str, path: Path) -> Any:
    import wandb

    kind = "report" if path.is_file() else "sae"
    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "_", name)[:128], type=kind)
    if path.is_file():
        artifact.add_file(str(path))
    else:
        artifact.add_dir(str(path))
    return artifact


def _log_table(run: Any, name: str, found: FrontierTable) -> None:
    import wandb

    rows = [[_plain(value) for value in row] for row in found.rows]
    table = wandb.Table(columns=list(found.columns), data=rows, allow_mixed_types=True)
    plot = wandb.plot.scatter(table, "l0", found.y, title=f"{found.y} against L0: {found.title}")
    run.log({name: table, f"{name}_plot": plot}, commit=False)


def _plain(value: Any) -> Any:
    """Numbers as floats: a table's column has one type."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def say(text: str) -> None:
    """A line for people."""
    print(f"wandb: {text}", file=sys.stderr, flush=True)
