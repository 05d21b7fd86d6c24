"""Looking at members' latents for their pages in the report: the analysis `latents`, with the model at hand."""

import io
from contextlib import redirect_stdout
from pathlib import Path

from sae_sweep.analyses.session.command import analyse
from sae_sweep.errors import ConfigError


def look(folder: Path, count: str, config_folder: Path) -> None:
    """Ask the analysis of so many latents of each finished member; what it finds is in their folders. Raises
    ConfigError for a count that is none, and where the sweep has no language model."""
    if not count.isdecimal() or int(count) == 0:
        raise ConfigError(f"report: --latents={count} is not a whole number above 0")
    with redirect_stdout(io.StringIO()):  # its numbers are in the report
        analyse(folder, ["--analysis", "latents", f"analysis.latents.n={count}"], config_folder)
