"""The command `sae-sweep`: a Hydra program, with `report` beside it.

`sae-sweep [+experiment=NAME] [group=option ...] [key=value ...]` trains what is missing of a sweep. Exit codes:
0 done, 1 a member failed, 2 the command asked for something that cannot be, 130 interrupted.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sae_sweep.arguments import prepared
from sae_sweep.config import member_config
from sae_sweep.errors import ConfigError

SPIN = "2000"
"""How often torch's CPU threads look for more work before they sleep, unless the environment says. By itself they
look for milliseconds, and on cores that anything else uses too a step then takes twenty times as long."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (by default the process's own) and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)  # read once, when torch is first imported
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
        from sae_sweep.explanations import explained

        return _refused(explained(error))
    except SweepFailed:
        return 1
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
    if len(arguments) != 1:
        raise ConfigError("report: takes one folder, as in `sae-sweep report outputs/demo`")
    folder = Path(arguments[0])
    if not (folder / "sweep.json").is_file():
        raise ConfigError(f"report: {folder} has no sweep.json; give the folder of a sweep, like outputs/demo")
    from sae_sweep.reporting.report import write_report  # brings in plotly

    write_report(folder)


SUBCOMMANDS: Mapping[str, Callable[[Sequence[str]], None]] = {"report": report}


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


def _refused(reason: str) -> int:
    print(f"sae-sweep: error: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
