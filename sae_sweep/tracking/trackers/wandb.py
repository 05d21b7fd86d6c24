"""wandb: one run per member and one per sweep. The package is imported only when tracking asks for it."""

import hashlib
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sae_sweep.config.saved import architecture_label
from sae_sweep.config.schema import TrackingConfig
from sae_sweep.config.values import finite
from sae_sweep.host.network import answers
from sae_sweep.tracking.runs import FrontierTable
from sae_sweep.tracking.wandb_files import last_offline_step

INIT_TIMEOUT = 10.0
"""Seconds. wandb's own is 90; a server that does not answer must not hold up training."""
FINISH_TIMEOUT = 120.0
"""Seconds that one run may take to upload what it still has."""
_NOT_OF_THE_MEMBER = ("output_dir", "dry_run")


def open_runs(sweep_folder: Path, sweep_name: str, config: TrackingConfig) -> "WandbRuns | None":
    """The runs of one process; None when `tracking.mode` is none."""
    return None if config.mode == "none" else WandbRuns(sweep_folder, sweep_name, config)


class WandbRuns:
    """The live wandb runs of one process."""

    def __init__(self, sweep_folder: Path, sweep_name: str, config: TrackingConfig) -> None:
        self._folder = sweep_folder
        self._sweep = sweep_name
        self._config = config
        self._runs: dict[str, Any] = {}
        self._begun = 0
        if config.mode == "online" and (why := _unready()):
            self._go_offline(why)

    def begin(self, label: str, identity: str, config: Mapping[str, Any]) -> int:
        """Open a member's run; the last step that wandb has of it, -1 for none.

        Its id follows from the sweep and the member, so a resumed member goes on in its own.
        """
        shown = {key: value for key, value in config.items() if key not in _NOT_OF_THE_MEMBER}
        shown["architecture"] = architecture_label(config)
        self._init(label, label, identity, "train", shown)
        if self._config.mode == "online":
            return int(self._runs[label].starting_step) - 1
        return last_offline_step(self._folder, self._run_id(identity))

    def log(self, label: str, step: int, values: Mapping[str, float | None]) -> None:
        """Log one step of a member; undefined values are left out."""
        run = self._runs.get(label)
        if run is not None:
            run.log({key: value for key, value in values.items() if value is not None}, step=step)

    def finish(self, label: str, metrics: Mapping[str, Any]) -> None:
        """Close a run with flat summary values, which is what wandb's scatter plots over runs read."""
        self._end(label, metrics, exit_code=0)

    def fail(self, label: str, reason: str) -> None:
        """Close the run of a member that will not be finished."""
        self._end(label, {"failed": reason}, exit_code=1)

    def frontier(self, tables: Sequence[FrontierTable]) -> None:
        """One run for the sweep, with a table and a scatter plot per cell."""
        self._init("", f"{self._sweep} frontier", "summary", "sweep-summary", {"sweep": self._sweep})
        for index, table in enumerate(tables):
            _log_table(self._runs[""], "frontier" if len(tables) == 1 else f"frontier_{index}", table)
        self._end("", {"members": sum(len(table.rows) for table in tables)}, exit_code=0)

    def close(self) -> None:
        """End the runs that are still open as preempted, and say how offline runs are uploaded."""
        for label in list(self._runs):
            self._runs[label].mark_preempting()
            self._end(label, {}, exit_code=1)
        if self._begun and self._config.mode == "offline":
            _say(f"runs are kept offline; upload them with: wandb sync {self._folder / 'wandb'}/offline-run-*")

    def _end(self, label: str, summary: Mapping[str, Any], exit_code: int) -> None:
        run = self._runs.pop(label, None)
        if run is None:
            return
        # wandb holds back the last step; let go at finish, it would overwrite the final values with that step's own.
        run.log({}, commit=True)
        for key, value in summary.items():
            run.summary[key] = finite(value) if isinstance(value, float) else value
        run.finish(exit_code=exit_code)

    def _go_offline(self, why: str) -> None:
        self._config = replace(self._config, mode="offline")
        _say(f"{why}; runs are kept offline")

    def _init(self, label: str, name: str, identity: str, job_type: str, config: Mapping[str, Any]) -> None:
        """Open a run; where the server does not take the first one, all are kept offline."""
        import wandb

        try:
            self._open(label, name, identity, job_type, config)
        except wandb.errors.Error as error:
            if self._config.mode != "online" or self._begun:
                raise
            self._go_offline((str(error).splitlines() or ["no answer"])[0])
            self._open(label, name, identity, job_type, config)

    def _open(self, label: str, name: str, identity: str, job_type: str, config: Mapping[str, Any]) -> None:
        import wandb

        settings = wandb.Settings(
            console="off",
            silent=True,
            x_disable_stats=True,
            x_disable_meta=True,
            save_code=False,
            disable_git=True,
            init_timeout=INIT_TIMEOUT,
            finish_timeout=FINISH_TIMEOUT,
            finish_timeout_raises=True,
        )
        run = wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            mode="online" if self._config.mode == "online" else "offline",
            id=self._run_id(identity),
            name=name,
            group=self._sweep,
            job_type=job_type,
            dir=str(self._folder),
            config=dict(config),
            reinit="create_new",
            # Offline, an id that exists is not found, and "allow" only warns.
            resume="allow" if self._config.mode == "online" else None,
            settings=settings,
        )
        self._runs[label] = run
        self._begun += 1
        if self._begun == 1 and self._config.mode == "online":
            _say(f"group {self._sweep} at {run.project_url}")
        if job_type == "train":
            run.define_metric("tokens")
            run.define_metric("*", step_metric="tokens")

    def _run_id(self, identity: str) -> str:
        """The salt is this folder's own: wandb drops the steps of a run that is trained anew under an old id."""
        salt = self._folder / "wandb" / "salt"
        if not salt.exists():
            salt.parent.mkdir(parents=True, exist_ok=True)
            value = secrets.token_hex(4)
            mine = salt.with_name(f"salt.{value}")
            mine.write_text(value, encoding="utf-8")
            # A link appears whole, and only once: groups that begin together agree.
            with suppress(FileExistsError):
                salt.hardlink_to(mine)
            mine.unlink()
        text = f"{self._sweep}/{identity}/{salt.read_text(encoding='utf-8')}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unready() -> str | None:
    """Why nothing can be sent to wandb's server; None where it may be. On a terminal wandb would ask for a key, and
    without a network wait for minutes."""
    import wandb

    server = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    if not answers(server):
        return f"{server} does not answer"
    if not wandb.login(host=server, prompt=False, verify=False):
        return "there is no API key (wandb login, or WANDB_API_KEY)"
    return None


def _log_table(run: Any, name: str, found: FrontierTable) -> None:
    import wandb

    rows = [[_plain(value) for value in row] for row in found.rows]
    table = wandb.Table(columns=list(found.columns), data=rows, allow_mixed_types=True)
    plot = wandb.plot.scatter(table, "l0", found.y, title=f"{found.y} against L0: {found.title}")
    run.log({name: table, f"{name}_plot": plot}, commit=False)


def _plain(value: Any) -> Any:
    """Numbers as floats: a table's column has one type."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _say(text: str) -> None:
    print(f"wandb: {text}", file=sys.stderr, flush=True)
