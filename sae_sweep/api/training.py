"""The command, from Python."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sae_sweep.api.sweep import Sweep, open_sweep
from sae_sweep.errors import ConfigError, SweepFailed
from sae_sweep.folder import names

if TYPE_CHECKING:
    from sae_sweep.data.given import Blocks


def train(*overrides: str, name: str, output_dir: str | Path = "outputs", activations: "Blocks | None" = None) -> Sweep:
    """Do what `sae-sweep name=NAME OVERRIDES...` does, in this process, and return the sweep.

    `activations` takes the place of a model and its tokens: `f(n)` returns an iterator over arrays [B, D], from the
    n-th block on, all of one B and the same whenever they are asked for. A plain iterable will do, but it comes once:
    then no checkpoints are kept. The first blocks are held out.

    Members that failed are in its frame, with the others. Raises ConfigError for what the command refuses, and after
    the plan of a dry run, which leaves no sweep to return.

    >>> sweep = ss.train("sae=topk", "sae.k=8,16", name="mine")  # doctest: +SKIP
    >>> sweep = ss.train("sae=topk", name="mine", activations=lambda n: blocks[n:])  # doctest: +SKIP
    """
    from sae_sweep.config.files import config_folder
    from sae_sweep.launch.hydra.program import run  # brings in Hydra

    with suppress(SweepFailed), _handed_over(activations, name) as own:
        run([*own, *overrides, f"name={name}", f"output_dir={output_dir}"], config_folder(), "")
    folder = Path(output_dir) / name
    if not (folder / names.SWEEP).is_file():
        raise ConfigError(f"dry_run: this was the plan, and there is no sweep in {folder} yet; leave it out to train")
    return open_sweep(folder)


@contextmanager
def _handed_over(blocks: "Blocks | None", name: str) -> Iterator[list[str]]:
    """The overrides that have a run read these blocks, while it lasts."""
    if blocks is None:
        yield []
        return
    from sae_sweep.data.given import GIVEN, Given

    GIVEN[name] = given = Given(blocks)
    try:
        rows = given.size // given.context
        yield ["data=given", f"data.path={name}", f"data.context={given.context}", f"data.block_rows={rows}"]
    finally:
        del GIVEN[name]
