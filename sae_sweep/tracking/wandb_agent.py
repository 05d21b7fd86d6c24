"""What `wandb agent` asks of a command that it starts: the run that it watches, of one trial of a `wandb sweep`.

wandb would give every run of the process that id, so the variables are taken out of the environment, and the run that
is meant is given what they said: that of the only member, or where there are several that of the sweep.
"""

import os
from typing import Any

from sae_sweep.tracking.runs import TrackedRun

VARIABLES = {"WANDB_SWEEP_ID": "sweep_id", "WANDB_SWEEP_PARAM_PATH": "sweep_param_path", "WANDB_RUN_ID": "run_id"}
"""Variables, and what wandb's settings call them."""
_asked: dict[str, str] = {}
"""What the agent that started this process asks for, until a run answers it."""


def look_for_agent() -> None:
    """Take what an agent says out of the environment. Before wandb looks at that."""
    if "WANDB_SWEEP_ID" in os.environ:
        for name, setting in VARIABLES.items():
            if (value := os.environ.pop(name, None)) is not None:
                _asked[setting] = value


def asked_of(run: TrackedRun) -> dict[str, Any]:
    """wandb's settings of the run where it is the one that the agent watches; it is asked for once."""
    if run.config.get("members") == 1:
        return {}  # the member's own run is to come
    found = dict(_asked)
    _asked.clear()
    return found
