"""What a group cannot do yet that several devices share: each is one line, before anything is loaded."""

from types import SimpleNamespace

import pytest

from sae_sweep.errors import ConfigError
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.training.run import opening
from tests.plan.test_costs import config

ROWS = ("training.batch_size=1024", "data.context=128")
ALONE = [
    ((*ROWS, "training.objective=e2e"), "training.objective=e2e is trained on one device only, and there are 2"),
    ((*ROWS, "training.objective=kl_mse"), "training.objective=kl_mse is trained on one device only, and there are 2"),
]


@pytest.mark.parametrize(("asked", "message"), ALONE)
def test_several_devices_are_refused_in_planning(asked: tuple[str, ...], message: str) -> None:
    assert len(plan_sweep([config(*asked)]).members) == 1
    with pytest.raises(ConfigError) as caught:
        plan_sweep([config(*asked, "launcher.devices=2")])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("asked", "message"), ALONE)
def test_ranks_of_torchrun_are_refused(asked: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the config knows nothing of."""
    monkeypatch.setattr(opening, "join", lambda launcher, device: SimpleNamespace(size=2, hosts=1))
    (planned,) = plan_sweep([config(*asked)]).groups
    with pytest.raises(ConfigError) as caught:
        opening.passes(planned)
    assert message in str(caught.value)
