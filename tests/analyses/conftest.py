"""A small sweep for all tests of analyses: two architectures, widths, layers and seeds on a random model."""

import inspect
from pathlib import Path

import pytest

from sae_sweep.launch.local import run_sweep
from tests.evaluation.groups import planned, small


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, llama_folder: Path) -> Path:
    """Its folder, of 16 members."""
    outputs = tmp_path_factory.mktemp("outputs")
    (outputs / "text.txt").write_text(inspect.getsource(inspect))
    shared = [*small(outputs, llama_folder, outputs / "text.txt"), "training.tokens=960"]
    shared += ["training.batch_size=48", "training.lr=3e-3", "sae.l0=3"]
    members = {
        f"{sae}{width}{layer}{seed}": [f"sae={sae}", f"sae.width={width}", f"site.layer={layer}", f"seed={seed}"]
        for sae in ("topk", "gated")
        for width in (24, 40)
        for layer in (1, 2)
        for seed in (0, 1)
    }
    made = planned(shared, members)
    assert {one.state for one in run_sweep(list(made.configs.values()))} == {"finished"}
    return made.folder.root
