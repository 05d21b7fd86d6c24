"""How a transcoder is trained beyond its loss."""

import torch

from tests.training.fabricate import D, member
from tests.training.transcoders import D_OUT, block, trainer, transcoding


def test_a_skip_starts_at_nothing_and_moves_as_a_bias_does() -> None:
    """Adam's first step is lr in every entry; the skip's is lr over the numbers that it reads."""
    one = transcoding(member("standard", sae_l1=0.1, sae_skip=True, training_lr=1e-2, training_lr_warmup_steps=0))
    made = trainer([one])
    assert not made.bank.storage["W_skip"].any()
    before = made.bank.storage["b_dec"].clone()
    made.consume(block(0, rows=32), lambda: None)
    lr = one.schedule.lr_at(0)
    assert made.bank.storage["W_skip"].shape == (1, D_OUT, D)
    torch.testing.assert_close(made.bank.storage["W_skip"].abs(), torch.full((1, D_OUT, D), lr / D).double())
    torch.testing.assert_close((made.bank.storage["b_dec"] - before).abs(), torch.full((1, D_OUT), lr).double())


def test_a_skip_moves_down_its_gradient() -> None:
    """The loss ||y - y_hat||^2 has the slope -2 (y - y_hat) x^T in it."""
    one = transcoding(member("standard", sae_l1=0.1, sae_skip=True, training_lr=1e-2, training_lr_warmup_steps=0))
    made = trainer([one])
    batch = made.trained.inputs.batch(block(0, rows=32), slice(0, 32))
    p = made.bank.member(made.bank.storage, 0)
    f_BF = torch.relu(batch.x_BD @ p["W_enc"].T + p["b_enc"])
    error_BD = batch.target_BD - (f_BF @ p["W_dec"] + p["b_dec"])
    downhill = (error_BD.T @ batch.x_BD).sign()
    made.consume(block(0, rows=32), lambda: None)
    assert torch.equal(made.bank.storage["W_skip"][0].sign(), downhill)
