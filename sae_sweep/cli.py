"""The command `sae-sweep`: a Hydra program, with `report` and `status` beside it.

`sae-sweep [+experiment=NAME] [group=option ...] [key=value ...]` trains what is missing of a sweep. Exit codes:
0 done, 1 a member failed or the disk takes no more, 2 the command asked for something that cannot be, or another
process is at it, 128 + n stopped by signal n (130 SIGINT, 143 SIGTERM, 140 SIGUSR2): the same command goes on.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sae_sweep.config.reading import member_config
from sae_sweep.errors import ConfigError, ProcessLost, StorageError
from sae_sweep.folder import names
from sae_sweep.host import allocator as process
from sae_sweep.host.rank_processes import role, started
from sae_sweep.host.signals import Interrupted
from sae_sweep.launch.hydra.command_line import prepared


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (by default the process's own) and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    process.tune()
    own = role()
    if own.rank > 0:
        return _followed()
    code = _run(arguments)
    if code < 128 and (own.size > 1 or started()):  # who is interrupted may be in the middle of a talk
        from sae_sweep.training.devices.joining import dismiss  # brings in torch

        dismiss()
    return code


def _followed() -> int:
    """As a rank that torchrun or the command started: what is wrong is rank 0's to say, but that it is gone."""
    from sae_sweep.training.run.opening import follow  # brings in torch

    try:
        follow()
    except ProcessLost as error:
        return _refused(str(error), error.exit_code)
    except Interrupted as interrupted:
        return interrupted.exit_code
    return 0


def _run(arguments: Sequence[str]) -> int:
    from hydra.errors import HydraException

    from sae_sweep.launch.local import SweepFailed

    try:
        if arguments and arguments[0] in SUBCOMMANDS:
            SUBCOMMANDS[arguments[0]](arguments[1:])
        else:
            _run_hydra(arguments)
    except ConfigError as error:
        return _refused(str(error))
    except HydraException as error:
        from sae_sweep.launch.hydra.explanations import explained

        return _refused(explained(error))
    except SweepFailed:
        return 1
    except StorageError as error:
        return _refused(str(error), 1)
    except ProcessLost as error:
        return _refused(str(error), error.exit_code)
    except Interrupted as interrupted:
        return interrupted.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `sae-sweep ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def config_folder() -> Path:
    """`configs/` of the checkout where there is one, else the copy inside the installed package."""
    package = Path(__file__).resolve().parent
    checkout = package.parent
    return checkout / "configs" if (checkout / "pyproject.toml").is_file() else package / "configs"


def report(arguments: Sequence[str]) -> None:
    """`sae-sweep report DIR`: rewrite pareto.json and report.html from the members' metrics."""
    folder = _sweep_folder("report", arguments)
    from sae_sweep.reporting.report import write_report  # brings in plotly

    write_report(folder)


def status(arguments: Sequence[str]) -> None:
    """`sae-sweep status DIR [--json]`: how far a sweep is, whoever trains it."""
    from sae_sweep.launch.status import print_status

    folder = _sweep_folder("status", [argument for argument in arguments if argument != "--json"])
    print_status(folder, as_json="--json" in arguments)


def cancel(arguments: Sequence[str]) -> None:
    """`sae-sweep cancel DIR`: end the jobs of a sweep that a cluster has; what they have written stays."""
    from sae_sweep.launch.cancel import cancel_sweep

    cancel_sweep(_sweep_folder("cancel", arguments))


def work(arguments: Sequence[str]) -> None:
    """`sae-sweep work DIR`: what a worker of a cluster runs; DIR is one of a sweep's `.state/tasks/`."""
    from sae_sweep.launch.worker import train_task

    if len(arguments) != 1:
        raise ConfigError("work: takes one folder; clusters' workers are given it")
    train_task(Path(arguments[0]).absolute())


SUBCOMMANDS: Mapping[str, Callable[[Sequence[str]], None]] = {
    "report": report,
    "status": status,
    "cancel": cancel,
    "work": work,
}


def _sweep_folder(command: str, arguments: Sequence[str]) -> Path:
    if len(arguments) != 1:
        raise ConfigError(f"{command}: takes one folder, as in `sae-sweep {command} outputs/demo`")
    folder = Path(arguments[0])
    if not (folder / names.SWEEP).is_file():
        raise ConfigError(f"{command}: {folder} has no sweep.json; give the folder of a sweep, like outputs/demo")
    return folder


def _run_hydra(arguments: Sequence[str]) -> None:
    import hydra

    refused: list[ConfigError] = []

    def run_one(config: DictConfig) -> None:
        """Of hydra.mode=RUN only; a launcher calls `run_sweep` for all its jobs at once."""
        try:
            _run_one(config)
        except ConfigError as error:
            refused.append(error)  # raised here, Hydra would print a line of its own

    base = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}  # 1.4 warns when it is given
    program: Callable[[], Any] = hydra.main(str(config_folder()), "config", **base)(run_one)
    with _process(["sae-sweep", *prepared(arguments)]):
        program()
    if refused:
        raise refused[0]


def _run_one(config: DictConfig) -> None:
    from sae_sweep.launch.local import SweepFailed, run_sweep

    if run_sweep([member_config(config)])[0].state == "failed":
        raise SweepFailed


@contextmanager
def _process(argv: list[str]) -> Iterator[None]:
    """The process as `hydra.main` must see it: its argv, and the variable that makes Hydra raise, not print, errors."""
    before_argv, before_variable = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = argv
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = before_argv
        if before_variable is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before_variable


def _refused(reason: str, code: int = 2) -> int:
    print(f"sae-sweep: error: {reason}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
