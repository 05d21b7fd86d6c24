from functools import cache
from pathlib import Path

import pytest

from tests.training.run.toy_sweeps import Alone, forget_config, sweep


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    @cache
    def made(*members: tuple[str, ...], also: tuple[str, ...] = ()) -> Path:
        folder = tmp_path_factory.mktemp("alone")
        assert {outcome.state for outcome in sweep(folder, *members, also=also)} <= {"finished", "failed"}
        return forget_config(folder / "sweep")

    return made
