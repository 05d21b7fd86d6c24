"""wandb: one run per member and one per sweep. The package is imported only when tracking asks for it."""

import hashlib
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.config.values import finite
from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.reporting.cell import cell_title
from sae_sweep.reporting.points import FACTS, architecture_label
from sae_sweep.tracking.wandb_files import last_offline_step

INIT_TIMEOUT = 30.0
"""Seconds. wandb's own is 90; a server that does not answer must not hold up training."""
FINISH_TIMEOUT = 120.0
"""Seconds that one run may take to upload what it still has."""
_NOT_OF_THE_MEMBER = ("output_dir", "dry_run")


class WandbRuns:
    """The live wandb runs of one process. After the first error all are given up, in one line on stderr."""

    def __init__(self, sweep_folder: Path, sweep_name: str, config: TrackingConfig) -> None:
        self._folder = sweep_folder
        self._sweep = sweep_name
        self._config = config
        self._runs: dict[str, Any] = {}
        self._last_steps: dict[str, int] = {}
        self._usable = True
        self._begun = 0

    def begin(self, label: str, identity: str, config: Mapping[str, Any]) -> int:
        """Open a member's run; the last step that wandb has of it, -1 for none.

        Its id follows from the sweep and the member, so a resumed member goes on in its own.
        """
        shown = {key: value for key, value in config.items() if key not in _NOT_OF_THE_MEMBER}
        shown["architecture"] = architecture_label(config)
        self._attempt(lambda: self._init(label, label, identity, "train", shown))
        self._attempt(lambda: self._ask_last_step(label, identity))
        return self._last_steps.get(label, -1)

    def _ask_last_step(self, label: str, identity: str) -> None:
        online = self._config.mode == "online"
        run_id = self._run_id(identity)
        self._last_steps[label] = (
            self._runs[label].starting_step - 1 if online else last_offline_step(self._folder, run_id)
        )

    def log(self, label: str, step: int, values: Mapping[str, float | None]) -> None:
        """Log one step of a member; undefined values are left out."""
        run = self._runs.get(label)
        if run is not None:
            known = {key: value for key, value in values.items() if value is not None}
            self._attempt(lambda: run.log(known, step=step))

    def end(self, label: str, summary: Mapping[str, Any], exit_code: int) -> None:
        """Close a run with flat summary values, which is what wandb's scatter plots over runs read."""
        run = self._runs.pop(label, None)
        if run is not None:
            self._attempt(lambda: _end(run, summary, exit_code))

    def log_frontier(self, cells: Sequence[Mapping[str, Any]]) -> None:
        """One run for the sweep, with a table and a scatter plot per cell."""
        self._attempt(
            lambda: self._init("", f"{self._sweep} frontier", "summary", "sweep-summary", {"sweep": self._sweep})
        )
        run = self._runs.get("")
        if run is None:
            return
        self._attempt(lambda: _log_cells(run, cells))
        self.end("", {"members": sum(len(cell["points"]) for cell in cells)}, exit_code=0)

    def close(self) -> None:
        """End the runs that are still open as preempted, and say how offline runs are uploaded."""
        for label, run in list(self._runs.items()):
            self._attempt(run.mark_preempting)
            self.end(label, {}, exit_code=1)
        if self._begun and self._config.mode == "offline":
            _say(f"runs are kept offline; upload them with: wandb sync {self._folder / 'wandb'}/offline-run-*")

    def _init(self, label: str, name: str, identity: str, job_type: str, config: Mapping[str, Any]) -> None:
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

    def _attempt(self, action: Callable[[], object]) -> None:
        if not self._usable:
            return
        try:
            action()
        except Exception as error:  # wandb raises of every kind, and none is worth a training run
            self._usable = False
            self._runs.clear()
            reason = (str(error).splitlines() or [""])[0]
            _say(f"given up, training goes on with metrics.jsonl alone ({type(error).__name__}: {reason})")


def log_summary(
    sweep_folder: Path, sweep_name: str, config: TrackingConfig, cells: Sequence[Mapping[str, Any]]
) -> None:
    """One wandb run for the whole sweep: its frontier as a table and as a scatter plot. Nothing when mode is none."""
    if config.mode == "none":
        return
    runs = WandbRuns(sweep_folder, sweep_name, config)
    runs.log_frontier(cells)
    runs.close()


def _end(run: Any, summary: Mapping[str, Any], exit_code: int) -> None:
    # wandb holds back the last step; let go at finish, it would overwrite the final values with that step's own.
    run.log({}, commit=True)
    for key, value in summary.items():
        run.summary[key] = finite(value) if isinstance(value, float) else value
    run.finish(exit_code=exit_code)


def _log_cells(run: Any, cells: Sequence[Mapping[str, Any]]) -> None:
    for index, cell in enumerate(cells):
        _log_cell(run, "frontier" if len(cells) == 1 else f"frontier_{index}", cell)


def _log_cell(run: Any, name: str, cell: Mapping[str, Any]) -> None:
    import wandb

    on_frontier = set(cell["frontiers"]["overall"])
    keys = list(dict.fromkeys([*FACTS, *METRICS]))
    rows = [[*(_plain(point[key]) for key in keys), point["member"] in on_frontier] for point in cell["points"]]
    table = wandb.Table(columns=[*keys, "on_frontier"], data=rows, allow_mixed_types=True)
    y = cell["fidelity"]
    title = f"{y} against L0: {cell_title(cell['key'])}"
    plot = wandb.plot.scatter(table, "l0", y, title=title)
    run.log({name: table, f"{name}_plot": plot}, commit=False)


def _plain(value: Any) -> Any:
    """Numbers as floats: a table's column has one type."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _say(text: str) -> None:
    print(f"wandb: {text}", file=sys.stderr, flush=True)
