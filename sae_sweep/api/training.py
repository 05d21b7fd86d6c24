"""The command, from Python."""

from contextlib import suppress
from pathlib import Path

from sae_sweep.api.sweep import Sweep, open_sweep
from sae_sweep.errors import SweepFailed


def train(*overrides: str, name: str, output_dir: str | Path = "outputs") -> Sweep:
    """Do what `sae-sweep name=NAME OVERRIDES...` does, in this process, and return the sweep.

    Members that failed are in its frame, with the others. Raises ConfigError for what the command refuses.

    >>> sweep = ss.train("sae=topk", "sae.k=8,16", name="mine")  # doctest: +SKIP
    """
    from sae_sweep.config.files import config_folder
    from sae_sweep.launch.hydra.program import run  # brings in Hydra

    with suppress(SweepFailed):
        run([*overrides, f"name={name}", f"output_dir={output_dir}"], config_folder(), "")
    return open_sweep(Path(output_dir) / name)
