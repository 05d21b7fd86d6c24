"""What a sweep comes to that no cluster has touched."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.sweeps import SWEEP, results
from tests.e2e.kills import finish, start


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, bytes]]:
    """What the same sweep leaves when it is trained in one process without a break."""
    made: dict[tuple[str, ...], dict[str, bytes]] = {}

    def run(*arguments: str) -> dict[str, bytes]:
        if arguments not in made:
            folder: Path = tmp_path_factory.mktemp("alone")
            code, said = finish(start(folder, *SWEEP, *arguments))
            assert code == 0, said
            made[arguments] = results(folder / "outputs" / "it")
        return made[arguments]

    return run
