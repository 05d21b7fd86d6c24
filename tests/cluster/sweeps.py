"""The small sweep that clusters are tried with, and what it leaves."""

from pathlib import Path

from sae_sweep.folder.checkpoints import StateFolder
from tests.e2e.kills import written

SWEEP = (
    *("data=toy", "data.toy.dimensions=24", "data.toy.latents=30", "data.toy.active=3", "model.device=cpu"),
    *("data.context=16", "data.block_rows=64", "sae=topk", "sae.k=3,4", "sae.width=24", "training.batch_size=64"),
    *("evaluation.tokens=1000", "tracking=none", "name=it", "training.checkpoint_tokens=2000"),
)
"""Members of one group, or with several values of data.seed of several."""
SHORT = ("training.tokens=6e3",)
LONG = ("training.tokens=1.5e5", "training.checkpoint_minutes=null")
"""Time to be ended in."""


def results(sweep: Path) -> dict[str, bytes]:
    """Every file but those that say how it was run: `.state`, where a cluster's logs and job ids stay, and configs."""
    return {
        name: contents
        for name, contents in written(sweep).items()
        if not name.startswith(".state/") and not name.endswith("config.yaml")
    }


def step(sweep: Path) -> int:
    """The furthest that is on disk."""
    return max((checkpoint.step for checkpoint in StateFolder(sweep).homes().values()), default=0)
