"""What SAELens itself saved, in training and for use, gives its codes and reconstructions here."""

import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sae_sweep.interop import load_sae

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-interop" / "bin" / "python"

pytestmark = pytest.mark.evidence


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not PYTHON.exists():
        pytest.fail(f"{PYTHON.parents[1].name} is missing; run `make .venv-interop`", pytrace=False)
    folder = tmp_path_factory.mktemp("saelens")
    done = subprocess.run(
        [PYTHON, ROOT / "scripts" / "write_saelens.py", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_architecture(saved: Path) -> None:
    """Six of its trainers, as a checkpoint and as it is used, and four transcoders."""
    folders = sorted(saved.iterdir())
    assert len(folders) == 16
    for folder in folders:
        sae, expected = load_sae(folder), load_file(folder / "saelens_check.safetensors")
        codes_BF = sae.encode(expected["x"])
        assert 0 < (codes_BF > 0).double().mean() < 0.9, folder.name
        torch.testing.assert_close(codes_BF, expected["codes"], rtol=1e-5, atol=1e-5, msg=folder.name)
        own_BD = sae.decode(codes_BF, None, expected["x"])
        torch.testing.assert_close(own_BD, expected["reconstruction"], rtol=1e-5, atol=1e-5, msg=folder.name)
