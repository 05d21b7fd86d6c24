"""How cross-layer transcoders are updated and resampled: by the rows of all that a latent writes, end to end."""

import pytest
import torch
from torch import Tensor

from sae_sweep.saes.bank import Batch
from sae_sweep.training.step.optimizer import Adam
from sae_sweep.training.step.resampling import resample
from tests.saes.problems import D
from tests.saes.test_cross_layer import D_OUT, OWN, SPACES, WIDTH, bank_of, cross_layer, found
from tests.training.fabricate import member
from tests.training.step.test_optimizer import step_of
from tests.training.step.test_resampling import NORMS

DEAD = (1, 9, 15, 23)
"""One of the first layer, two of the second, one of the third."""


@pytest.mark.parametrize("kind", ["bricken", "april", "gated", "jumprelu_anthropic"])
def test_dead_latents_are_set_anew(kind: str) -> None:
    """On what their layer reads, about its mean, and on what the bias leaves of the outputs that they may write to."""
    made, y_BD = cross_layer(kind)
    bank = bank_of(made)
    adam = Adam(bank)
    for moment in adam.moments.values():
        for t in moment.values():
            t.fill_(0.5)
    before = {name: t.clone() for name, t in bank.member(bank.storage, 0).items()}
    dead_F = torch.zeros(WIDTH, dtype=torch.bool).index_fill_(0, torch.tensor(DEAD), True)
    batch = Batch(made.x_BD, made.token_B, y_BD)
    assert len(resample(bank, adam, 0, dead_F, batch, 0.7, torch.Generator().manual_seed(0))) == len(DEAD)
    after, moments = bank.member(bank.storage, 0), [bank.member(moment, 0) for moment in adam.moments.values()]
    encoder_norm = 0.2 * before["W_enc"][~dead_F].norm(dim=1).mean()
    tables = SPACES.tables(after["W_dec"])
    for latent in DEAD:
        layer, place = divmod(latent, OWN)
        left_BD = unit((y_BD - before["b_dec"])[:, layer * D_OUT :])
        row = tables[layer][place]
        distance_B = (left_BD - row / row.norm()).norm(dim=1)
        assert float(distance_B.min()) < 1e-12
        assert row.norm().item() == pytest.approx(NORMS.get(kind, 1.0), rel=1e-12)
        x_BD = made.x_BD[:, layer * D : (layer + 1) * D]
        about_D = (x_BD - x_BD.mean(0))[distance_B.argmin()]
        torch.testing.assert_close(after["W_enc"][latent], encoder_norm * about_D / about_D.norm())
        for moment in moments:
            assert not SPACES.tables(moment["W_dec"])[layer][place].any()
    for old, new in zip(SPACES.tables(before["W_dec"]), tables, strict=True):
        changed = (old != new).any(1).sum()
        assert changed == sum(latent // OWN == (3 - old.shape[1] // D_OUT) for latent in DEAD)
    for moment in moments:
        assert (moment["W_dec"] == 0).sum() == sum(D_OUT * (3 - latent // OWN) for latent in DEAD)


def test_rows_stay_at_unit_norm_end_to_end() -> None:
    """A step moves them across themselves: what Adam sees has nothing along what a latent writes to all layers."""
    made, y_BD = cross_layer("topk")
    bank, schedule = bank_of(made), member("topk", training_lr=1e-3, training_lr_warmup_steps=0).schedule
    before = bank.storage["W_dec"].clone()
    _, gradients = found(made, y_BD, dense=False)
    adam = Adam(bank)
    step_of(adam, 0, gradients, schedule, 0)
    torch.testing.assert_close(SPACES.decoder_norms(bank.storage["W_dec"]), torch.ones(WIDTH, dtype=torch.float64))
    seen = SPACES.tables(adam.moments["first_moment"]["W_dec"])
    for moment, table in zip(seen, SPACES.tables(before), strict=True):
        assert float(moment.abs().max()) > 0
        torch.testing.assert_close((moment * table).sum(1), torch.zeros(OWN, dtype=torch.float64), atol=1e-12, rtol=0)


def unit(rows_BD: Tensor) -> Tensor:
    return rows_BD / rows_BD.norm(dim=1, keepdim=True)
