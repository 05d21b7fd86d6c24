"""`sae-sweep dashboard DIR`: the wandb workspace that shows a sweep, made on the server, or as a file where none is."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.errors import ConfigError
from sae_sweep.folder.files import write_text_atomic
from sae_sweep.folder.names import DASHBOARD
from sae_sweep.tracking.trackers.wandb import say, unready

CURVES = ("train/fvu", "train/l0", "train/dead_fraction", "train/coefficient", "train/lr", "eval/ce_recovered")
"""Over tokens."""
COORDINATES = ("architecture", "width", "layer", "lr", "seed")
"""Of the config, in parallel coordinates, before L0 and fidelity."""
PACE = ("sweep/tokens_per_second", "sweep/model_tokens_per_second", "sweep/memory_gb", "sweep/members_judged")


def make_dashboard(folder: Path, asked: TrackingConfig, fidelity: str) -> None:
    """Make the workspace of a sweep in its project, in which `eval/<fidelity>` is weighed against L0; where there is no
    server, or no login, write what it would be into the folder. Raises ConfigError without wandb-workspaces."""
    why = unready() if asked.mode == "online" else f"tracking.mode is {asked.mode}"
    made = workspace(asked, fidelity, asked.entity or ("" if why else _default_entity()))
    file = folder / DASHBOARD
    write_text_atomic(file, json.dumps(json.loads(made._to_model().model_dump_json()), indent=1) + "\n")
    if why:
        say(f"{why}; the workspace is in {file}, and the same command makes it where wandb is")
        return
    try:
        made.save()
    except Exception as error:  # of whatever kind; what a server says of it is its own
        told = (str(error).splitlines() or ["no answer"])[0]
        raise ConfigError(f"dashboard: the workspace was not taken ({told}); it is in {file}") from error
    say(f"the workspace is at {made.url}")


def workspace(asked: TrackingConfig, fidelity: str, entity: str) -> Any:
    """The workspace: frontier, parallel coordinates, curves over tokens, and the run of the sweep."""
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as spaces
    except ImportError as error:
        raise ConfigError(
            "dashboard: wandb-workspaces is not installed; pip install 'sae-sweep[workspaces]'"
        ) from error
    l0, kept = panels.SummaryMetric("eval/l0"), panels.SummaryMetric(f"eval/{fidelity}")
    frontier = panels.ScatterPlot(
        title=f"{fidelity} against L0", x=l0, y=kept, z=panels.Config("architecture"), log_x=True, running_ymax=True
    )
    columns = [panels.ParallelCoordinatesPlotColumn(panels.Config(key)) for key in COORDINATES]
    columns += [panels.ParallelCoordinatesPlotColumn(l0, log=True), panels.ParallelCoordinatesPlotColumn(kept)]
    sections = [
        ("Frontier", [frontier, panels.ParallelCoordinatesPlot(columns=columns)]),
        ("Curves", _lines(panels, CURVES, "tokens")),
        ("Sweep", [panels.WeavePanelSummaryTable(table_name="frontier"), *_lines(panels, PACE, "Step")]),
    ]
    return spaces.Workspace(
        entity=entity,
        project=str(asked.project),
        name=f"{asked.group}: frontier",
        sections=[spaces.Section(name=name, panels=found, is_open=True) for name, found in sections],
        runset_settings=spaces.RunsetSettings(filters=f"Metric('Group') = '{asked.group}'"),
    )


def _lines(panels: Any, keys: Sequence[str], axis: str) -> list[Any]:
    return [panels.LinePlot(title=key, x=axis, y=[key]) for key in keys]


def _default_entity() -> str:
    import wandb

    return str(wandb.Api().default_entity or "")
