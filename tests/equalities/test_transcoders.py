"""Transcoders trained in a group == trained alone, for every architecture, with a skip and without."""

from itertools import cycle

import pytest
import torch

from sae_sweep.training.step import trainer as trainer_module
from tests.equalities.test_group_alone import MEMBERS
from tests.training.fabricate import KINDS, TOPK_KINDS, D, member, others_as_evidence, parameters, silence
from tests.training.transcoders import D_OUT, block, finish, trainer, transcoding


@pytest.mark.parametrize(("kind", "skip"), others_as_evidence(zip(KINDS, cycle((False, True)))))
def test_fifty_steps(kind: str, skip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resampling, steering and AuxK on the way."""
    revived: list[int] = []
    real = trainer_module.resample

    def counted(*arguments: object) -> object:
        latents = real(*arguments)  # type: ignore[arg-type]
        revived.append(len(latents))
        return latents

    monkeypatch.setattr(trainer_module, "resample", counted)
    common = {"sae_skip": skip, "sae_input_scale": "unit" if skip else "none", "sae_centre": skip}
    group = [transcoding(member(kind, **{**entries, **common})) for entries in MEMBERS[kind]]
    together = finish(silence(trainer(group), 3))
    assert [state.step for state in together.members] == [50, 50, 50, 35]
    for index, one in enumerate(group):
        alone = finish(silence(trainer([one]), 3))
        for name, expected in parameters(alone, 0).items():
            torch.testing.assert_close(parameters(together, index)[name], expected, rtol=1e-9, atol=1e-9)
    assert together.bank.storage["W_dec"].shape[1] == D_OUT
    if skip:
        assert together.bank.storage["W_skip"].shape == (4, D_OUT, D)
        assert float(together.bank.storage["W_skip"].abs().amax(dim=(1, 2)).min()) > 0
    if kind not in TOPK_KINDS:
        assert sum(revived) >= 3 * len(group)


@pytest.mark.parametrize(("kind", "skip"), [("standard", False), ("gated", True), ("topk", True), ("jumprelu", False)])
def test_it_learns_a_layer(kind: str, skip: bool) -> None:
    """The error of the folded form on a block that training never saw."""
    own = {**MEMBERS[kind][0], "sae_skip": skip, "training_tokens": 6400.0}
    made, held = trainer([transcoding(member(kind, **own))]), block(1_000)
    x_BD, y_BD = (held.activations[hook].double() for hook in made.members[0].plan.site.hooks)

    def error() -> float:
        sae = made.members[0].inference()
        return float((y_BD - sae.decode(sae.encode(x_BD), None, x_BD)).square().sum())

    before = error()
    finish(made)
    assert error() < 0.3 * before
