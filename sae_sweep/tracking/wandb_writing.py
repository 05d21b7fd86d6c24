"""A run written as wandb writes it offline, with the times that it had."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.tracking.past import PastRun
from sae_sweep.tracking.runs import Histogram
from sae_sweep.tracking.wandb_files import new_record, write_records
from sae_sweep.tracking.wandb_ids import run_id
from sae_sweep.tracking.wandb_server import last_step


def write_run(place: Path, folder: Path, past: PastRun, asked: TrackingConfig, server: str | None = None) -> Path:
    """Write a run as wandb does offline, without the steps that a server has of it; the file."""
    identity = run_id(folder, folder.name, past.run.identity)
    there = -1 if server is None else last_step(server, asked.entity, asked.project, identity)
    file = place / f"offline-run-20000101_000000-{identity}" / f"run-{identity}.wandb"
    file.parent.mkdir()
    write_records(file, _records(past, identity, asked, there))
    return file


def _records(past: PastRun, identity: str, asked: TrackingConfig, there: int) -> Iterator[Any]:
    run, start = past.run, past.rows[0][1] if past.rows else 0.0
    opened = new_record()
    told = {"run_id": identity, "project": asked.project, "entity": asked.entity or "", "run_group": asked.group}
    told |= {"display_name": run.name, "job_type": run.job, "notes": run.notes}
    for key, value in told.items():
        setattr(opened.run, key, value)
    opened.run.tags.extend(run.tags)
    opened.run.start_time.FromMicroseconds(int(start * 1e6))
    _fill(opened.run.config.update, run.config)
    yield opened
    if run.job == "train":
        yield from _axes()
    for index, (step, moment, values) in enumerate(past.rows):
        if step <= there:
            continue
        row: dict[str, Any] = {"_step": step, "_timestamp": moment, "_runtime": moment - start, **values}
        if index == len(past.rows) - 1:
            row |= {name: _histogram(one) for name, one in past.histograms.items()}
        record = new_record()
        record.history.step.num = step
        _fill(record.history.item, row)
        yield record
    last = {key: value for _, _, values in past.rows for key, value in values.items()}
    record = new_record()
    _fill(record.summary.update, last | dict(past.summary))
    yield record
    record = new_record()
    record.exit.exit_code = past.exit_code
    record.exit.runtime = int(past.rows[-1][1] - start) if past.rows else 0
    yield record


def _axes() -> Iterator[Any]:
    """Tokens are the axis of all the rest."""
    tokens, rest = new_record(), new_record()
    tokens.metric.name = "tokens"
    rest.metric.glob_name, rest.metric.step_metric, rest.metric.options.step_sync = "*", "tokens", True
    for record in (tokens, rest):
        record.metric.options.defined = True
        yield record


def _fill(items: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        item = items.add()
        item.key, item.value_json = key, json.dumps(value)


def _histogram(found: Histogram) -> dict[str, Any]:
    return {"_type": "histogram", "values": list(found.counts), "bins": list(found.edges)}
