"""The command in processes that have imported already what it would: for a tiny sweep that is most of the work.

`tests/e2e/kills.py` starts the installed program itself.
"""

import atexit
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest import mock

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_SILENT": "true"}
IMPORTED = (
    *("sae_sweep.cli", "sae_sweep.launch.local", "sae_sweep.reporting.report", "sae_sweep.training.run.opening"),
    *("transformers.models.llama.modeling_llama", "hydra.main", "sae_sweep.launch.hydra.jobs"),
    *("sae_sweep.kernels.cpu.products", "sae_sweep.kernels.cpu.loops", "plotly.offline"),
)


def run_forked(
    arguments: Sequence[str], folder: Path, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `sae-sweep` with these arguments in a folder, offline, with one thread; there, `before` is called first."""
    with tempfile.TemporaryDirectory() as outputs:
        out, err = Path(outputs) / "out", Path(outputs) / "err"
        environment = {**os.environ, **ENVIRONMENT}
        process = server().Process(target=_run, args=(arguments, folder, environment, out, err, before))
        process.start()
        process.join()
        assert process.exitcode is not None
        said = [file.read_text(encoding="utf-8") if file.exists() else "" for file in (out, err)]
        return subprocess.CompletedProcess(["sae-sweep", *arguments], process.exitcode, *said)


@cache
def server() -> ForkServerContext:
    """What starts processes that have imported already what the command does."""
    context = get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    with mock.patch.dict(os.environ, ENVIRONMENT):  # libraries read it when they are imported
        forkserver.ensure_running()
    return context


def _run(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    out: Path,
    err: Path,
    before: Callable[[], None] | None,
) -> None:
    """In the new process."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for stream, file in ((1, out), (2, err)):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, stream)
        os.close(opened)
    sys.argv = ["sae-sweep", *arguments]
    from sae_sweep.cli import main

    if before is not None:
        before()
    code = main(arguments)
    atexit._run_exitfuncs()  # which a process of this kind leaves out
    sys.exit(code)
