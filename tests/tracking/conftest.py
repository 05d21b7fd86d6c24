"""A finished sweep's folder."""

from pathlib import Path

import pytest

from tests.reporting.conftest import write_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "gated_vs_topk", lines=40)
