"""A model whose activations are larger changes nothing but their unit: every shipped recipe trains the same SAE."""

import pytest
import torch
from torch import Tensor

from sae_sweep.activations.scaling import site_statistics
from sae_sweep.activations.stream import Block
from sae_sweep.config.files import config_of
from sae_sweep.plan.groups import BankPlan
from sae_sweep.plan.members import Member
from sae_sweep.plan.schedules import resolve_schedule
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.training.run.trim import trimmed
from sae_sweep.training.step.calibration import Calibration
from sae_sweep.training.step.trainer import BankTrainer
from tests.architectures.options import KNOBS
from tests.training.fabricate import SITE, D, activations, before

STEPS, BATCH, WIDTH, L0 = 24, 32, 24, 4.0


def trained(option: str, times: float) -> tuple[InferenceSae, Tensor]:
    """An SAE trained and trimmed on inputs times this, and the inputs."""
    x_BD = times * activations(STEPS * BATCH)
    asked = {"sae": option, "sae.l0": L0, "sae.width": WIDTH, "tracking": "none", "site.layer": 0}
    asked |= {"training.tokens": STEPS * BATCH, "training.batch_size": BATCH}
    config = config_of(asked | ({"sae.groups": 3} if "matryoshka" in option or "scope" in option else {}))
    one = Member(config, "a", "a", SITE, D, WIDTH, resolve_schedule(config, D, WIDTH), D)
    block = Block(
        0, 0, {SITE.hook: x_BD}, {SITE.hook: torch.zeros(len(x_BD), dtype=torch.int64)}, before_B=before(len(x_BD))
    )
    calibration = Calibration((site_statistics(block)[SITE.hook],), torch.device("cpu"), torch.float32)
    trainer = BankTrainer(BankPlan(SITE, (one,)), calibration)
    trainer.consume(block, lambda: None)
    assert trainer.members[0].failed is None
    return trimmed(trainer.members[0].inference(), x_BD, block.tokens[SITE.hook], L0), x_BD


def fvu(sae: InferenceSae, x_BD: Tensor) -> float:
    error_BD = x_BD - sae.decode(sae.encode(x_BD))
    return float(error_BD.square().sum() / (x_BD - x_BD.mean(0)).square().sum())


@pytest.mark.parametrize("option", KNOBS)
def test_codes_go_with_the_inputs_and_all_else_stays(option: str) -> None:
    sae, x_BD = trained(option, 1.0)
    f_BF = sae.encode(x_BD)
    assert 1 < float((f_BF > 0).sum(1).float().mean()) < WIDTH
    for times in (2.0**7, 2.0**13):
        larger, larger_BD = trained(option, times)
        torch.testing.assert_close(larger.encode(larger_BD), times * f_BF, rtol=1e-5, atol=1e-5 * times)
        assert fvu(larger, larger_BD) == pytest.approx(fvu(sae, x_BD), rel=1e-5)
        torch.testing.assert_close(larger.tensors["W_dec"], sae.tensors["W_dec"], rtol=1e-5, atol=1e-6)
