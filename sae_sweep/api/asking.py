"""Asking analyses from Python."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_sweep.api.sweep import Sweep
from sae_sweep.config.files import config_folder

if TYPE_CHECKING:
    from sae_sweep.analyses.session.result import Result


def analyse(sweep: Sweep | str | Path, name: str, **options: Any) -> "Result":
    """What an analysis finds in the finished members of a sweep, with its `analysis.NAME.*` keys as options.

    Nothing is written; `sae-sweep eval` does the same and writes it. Raises ConfigError for an analysis or a key that
    there is not.

    >>> found = ss.analyse("outputs/mine", "matching", pairs="site")
    >>> [name for name in sorted(found.members["topk-l0_8-w256"]) if name.startswith("largest")]
    ['largest gated-l0_16-w256', 'largest gated-l0_8-w256', 'largest topk-l0_16-w256']
    """
    from sae_sweep.analyses.session.command import analysis_config, results  # brings in torch
    from sae_sweep.analyses.session.finished import finished_saes

    root = sweep.folder if isinstance(sweep, Sweep) else Sweep(Path(sweep).expanduser()).folder
    config = analysis_config(name, options, config_folder())
    return results(finished_saes(root), {name: config})[name]
