"""Between Hydra and a sweep: from lists of overrides to members, and from outcomes to what Hydra expects back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from sae_sweep.config.reading import member_config
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError, SweepFailed
from sae_sweep.launch.clusters import cluster_kind
from sae_sweep.launch.hydra.composition import GroupKeys, compose_jobs
from sae_sweep.launch.hydra.former import kept
from sae_sweep.launch.hydra.grids import sweep_jobs
from sae_sweep.launch.local import run_sweep
from sae_sweep.launch.remote import run_remote
from sae_sweep.launch.sweep import Outcome


def launch_grids(
    loader: ConfigLoader, launcher: Launcher, grids: Any, params: Any, command_line: Sequence[str], **unknown: Any
) -> Sequence[JobReturn]:
    """What the grids sweeper does: all jobs in one batch. Raises SweepFailed when a member failed."""
    if unknown:
        raise ConfigError(f"hydra.sweeper.{next(iter(unknown))}: no such key; its keys are grids, params")
    if not isinstance(grids or [], list):
        raise ConfigError(f"hydra.sweeper.grids={grids} is not a list; give a list of mappings")
    parser = OverridesParser.create(config_loader=loader)
    jobs = sweep_jobs(grids or [], params or {}, command_line, parser, GroupKeys(loader))
    returns = launcher.launch(jobs, initial_job_idx=0)
    if any(job.status == JobStatus.FAILED for job in returns):
        raise SweepFailed
    return returns


def launch_jobs(
    loader: ConfigLoader,
    master: DictConfig,
    jobs: Sequence[Sequence[str]],
    targets: Sequence[str] | None,
    earlier: list[MemberConfig],
    cluster: str | None,
    options: Mapping[str, Any],
) -> list[JobReturn]:
    """What a launcher does with one batch, on the cluster with these `options`; in this process where there is none.

    `earlier` holds the configs of the batches before and is extended: to the sweep folder they are one command,
    so a later batch neither clashes with their names nor trains them again.
    """
    configs = kept(loader, master, jobs, list(map(member_config, compose_jobs(loader, master, jobs))))
    outcomes = _outcomes([*earlier, *configs], cluster, options, targets)[len(earlier) :]
    earlier.extend(configs)
    return [_job_return(job, outcome, targets) for job, outcome in zip(jobs, outcomes, strict=True)]


def _outcomes(
    configs: Sequence[MemberConfig], cluster: str | None, options: Mapping[str, Any], targets: Sequence[str] | None
) -> list[Outcome]:
    if cluster is None:
        return run_sweep(configs)
    opened = cluster_kind(cluster).opened(options, configs[0].name)
    if targets is not None and not opened.waits:
        raise ConfigError("hydra.launcher.wait=false: the sweeper needs the results; leave it out")
    return run_remote(configs, opened)


def _job_return(job: Sequence[str], outcome: Outcome, targets: Sequence[str] | None) -> JobReturn:
    failed = outcome.state == "failed"
    value = SweepFailed(f"{outcome.label}: {outcome.reason}") if failed else _returned(outcome, targets)
    return JobReturn(
        overrides=list(job),
        working_dir=str(Path.cwd()),
        task_name=outcome.label,
        status=JobStatus.FAILED if failed else JobStatus.COMPLETED,
        _return_value=value,
    )


def _returned(outcome: Outcome, targets: Sequence[str] | None) -> Any:
    """The metrics a sweeper optimises, alone or as a tuple; all of them where no target is named."""
    if targets is None or outcome.metrics is None:
        return outcome.metrics
    missing = [name for name in targets if outcome.metrics.get(name) is None]
    if missing:
        raise ConfigError(f"hydra.launcher.targets: {missing[0]} is not a metric that {outcome.label} has")
    values = tuple(float(outcome.metrics[name]) for name in targets)
    return values[0] if len(values) == 1 else values
