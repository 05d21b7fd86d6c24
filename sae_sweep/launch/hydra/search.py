"""`hydra/sweeper=optuna`: Optuna proposes members in batches, and each batch is trained in one pass.

Nothing is stored: Optuna proposes by its seed and by the results, and members that are finished are not trained again.
So the same command proposes the same members, reads their metrics, and goes on where it ended.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from sae_sweep.config.values import shown
from sae_sweep.errors import ConfigError, SweepFailed

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

DIRECTIONS = ("minimize", "maximize")
EXAMPLE = "hydra.sweeper.metrics=[l0,ce_recovered] hydra.sweeper.directions=[minimize,maximize]"


def search(launcher: Launcher, options: Mapping[str, Any], arguments: Sequence[str], parser: OverridesParser) -> None:
    """Train the proposed members. `options` are the keys of `hydra.sweeper`, `arguments` the command line's overrides.

    Raises ConfigError for options that cannot be, and SweepFailed when a member failed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("hydra/sweeper=optuna: Optuna is not installed; pip install 'sae-sweep[optuna]'") from error
    objectives, trials, batch = _checked(options)
    space, fixed = _space(options["params"], arguments, parser)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=options["seed"], constant_liar=True)
    study = optuna.create_study(directions=list[Any](objectives.values()), sampler=sampler)
    failed = False
    for first in range(0, trials, batch):
        asked = [study.ask(space) for _ in range(min(batch, trials - first))]
        jobs = [[*fixed, *(f"{key}={shown(value)}" for key, value in trial.params.items())] for trial in asked]
        returns = launcher.launch(jobs, initial_job_idx=first)
        if all(one.status == JobStatus.COMPLETED and one.return_value is None for one in returns):
            return  # a dry run: what follows depends on results
        for trial, one in zip(asked, returns, strict=True):
            values = _values(one, objectives)
            failed = failed or values is None
            study.tell(trial, values, state=None if values else optuna.trial.TrialState.FAIL)
        _tell(study, objectives, trials)
    if failed:
        raise SweepFailed


def _checked(options: Mapping[str, Any]) -> tuple[dict[str, str], int, int]:
    metrics, directions = options["metrics"], options["directions"]
    if not isinstance(metrics, list) or not metrics or len(set(metrics)) < len(metrics):
        raise ConfigError(f"hydra.sweeper.metrics={shown(metrics)} is not a list of metrics, as in {EXAMPLE}")
    if not isinstance(directions, list) or len(directions) != len(metrics) or set(directions) - set(DIRECTIONS):
        raise ConfigError(
            f"hydra.sweeper.directions={shown(directions)} is not one of {', '.join(DIRECTIONS)} for each metric, as in"
            f" {EXAMPLE}"
        )
    for key in ("trials", "batch", "seed"):
        value = options[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < (key != "seed"):
            raise ConfigError(
                f"hydra.sweeper.{key}={shown(value)} is not a whole number of at least {1 * (key != 'seed')}"
            )
    return dict(zip(metrics, directions, strict=True)), options["trials"], options["batch"]


def _space(
    params: Any, arguments: Sequence[str], parser: OverridesParser
) -> tuple[dict[str, "BaseDistribution"], list[str]]:
    """What is searched, by key, and the overrides that every member has. The command line has the last word."""
    if not isinstance(params, dict):
        raise ConfigError(f"hydra.sweeper.params={shown(params)} is not a mapping of keys to what is searched")
    listed = [f"{key}={value if isinstance(value, str) else shown(value)}" for key, value in params.items()]
    overrides = {one.key_or_group: one for one in parser.parse_overrides([*listed, *arguments])}
    space = {key: _distribution(one) for key, one in overrides.items() if one.is_sweep_override() and not _single(one)}
    if not space:
        raise ConfigError("hydra.sweeper.params: nothing to search; give a key like sae.l0: tag(log, interval(8, 128))")
    fixed = [_fixed(one) for key, one in overrides.items() if key not in space]
    return space, fixed


def _single(override: Override) -> bool:
    value = override.value()
    return isinstance(value, ChoiceSweep) and len(value.list) == 1


def _fixed(override: Override) -> str:
    if not override.is_sweep_override():
        return str(override.input_line)
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def _distribution(override: Override) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    log = "log" in getattr(value, "tags", ())
    try:
        if isinstance(value, IntervalSweep):
            low, high = value.start, value.end
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log=log)
            if low is not None and high is not None:
                return FloatDistribution(low, high, log=log)
        if isinstance(value, RangeSweep) and isinstance(value.start, int) and isinstance(value.stop, int):
            return IntDistribution(value.start, value.stop - 1, step=int(value.step))
    except ValueError as error:
        raise ConfigError(f"{override.input_line}: {error}") from error
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _values(one: JobReturn, objectives: Mapping[str, str]) -> list[float] | None:
    """What a member is judged by; None where it failed."""
    if one.status == JobStatus.FAILED:
        return None
    metrics: Any = one.return_value
    if not isinstance(metrics, dict):
        raise ConfigError("hydra.launcher.targets: leave it out; hydra.sweeper.metrics says what is asked for")
    missing = [name for name in objectives if metrics.get(name) is None]
    if missing:
        raise ConfigError(f"hydra.sweeper.metrics: {missing[0]} is not a metric that {one.task_name} has")
    return [float(metrics[name]) for name in objectives]


def _tell(study: "Study", objectives: Mapping[str, str], trials: int) -> None:
    best, names = len(study.best_trials), ", ".join(f"{way} {name}" for name, way in objectives.items())
    print(f"sae-sweep: optuna: {len(study.trials)} of {trials} trials, {best} best ({names})", file=sys.stderr)
