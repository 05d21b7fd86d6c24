"""The Hydra program: `sae-sweep [group=option ...] [key=value ...]` trains what is missing of a sweep."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from sae_sweep.config.reading import member_config
from sae_sweep.errors import ConfigError, SweepFailed
from sae_sweep.launch.hydra.command_line import prepared
from sae_sweep.launch.hydra.explanations import explained
from sae_sweep.launch.hydra.files import check_files
from sae_sweep.launch.local import run_sweep


def run(arguments: Sequence[str], configs: Path, usage: str) -> None:
    """Run Hydra on one command line, with the config files in `configs`; `--help` shows the lines of `usage`.

    Raises ConfigError for what cannot be, in Hydra's eyes or in ours, and what `run_sweep` raises.
    """
    if sys.flags.optimize:
        raise ConfigError(
            f"PYTHONOPTIMIZE={sys.flags.optimize} takes out what Hydra reads command lines with; unset it"
        )
    refused: list[ConfigError] = []

    def run_one(config: DictConfig) -> None:
        """Of hydra.mode=RUN only; a launcher calls `run_sweep` for all its jobs at once."""
        try:
            if run_sweep([member_config(config)])[0].state == "failed":
                raise SweepFailed
        except ConfigError as error:
            refused.append(error)  # raised here, Hydra would print a line of its own

    OmegaConf.register_new_resolver("sae_sweep.usage", lambda: usage, replace=True)
    base = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}  # 1.4 warns when it is given
    program: Callable[[], Any] = hydra.main(str(configs), "config", **base)(run_one)
    try:
        check_files()
        with warnings.catch_warnings(), _process(["sae-sweep", *prepared(arguments)]):
            warnings.filterwarnings("error", "provider=hydra.searchpath")  # a folder of configs that there is not
            program()
    except Exception as error:
        if isinstance(error, HydraException) or (
            _while_reading(error) and not isinstance(error, ConfigError | OSError)
        ):
            raise ConfigError(explained(error)) from error
        raise
    if refused:
        raise refused[0]


def _while_reading(error: Exception) -> bool:
    """Whether Hydra, or what it stands on, raised it over what it was given to read: nothing of ours did, and nothing
    of ours but what is in this folder had called it."""
    ours = str(Path(__file__).parents[2])
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    called = [file for file in files if file.startswith(ours)]
    return files[-1] != called[-1] and Path(called[-1]).is_relative_to(Path(__file__).parent)


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
