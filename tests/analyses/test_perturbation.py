"""Errors of a size, by hand; and what they cost the model, by plain hooks in float64."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae_sweep.analyses import compute_equivalent
from sae_sweep.analyses.noise.errors import KINDS, Draws, Gaussian, at_cosine, cosines
from sae_sweep.analyses.perturbation import Config, draw_seed, run
from sae_sweep.analyses.session.batch import Batch, Lost
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.session import Session
from tests.analyses.plain import Change, PlainModel, in_bfloat16, in_float64

X, S = torch.tensor([[3.0, 4.0]]).double(), torch.tensor([[3.0, 0.0]]).double()
DRAWS = Draws(
    torch.tensor([[0.0, 2.0]]).double(), torch.tensor([[3.0, 0.0]]).double(), torch.tensor([0.0, 4.0]).double()
)


def test_errors_by_hand() -> None:
    """The error is (0, 4), so 4 long; |x| = 5, |s| = 3, and their cosine is 0.6. White noise (0, 2) has the direction
    (0, 1); across x it has that of (-0.8, 0.6), for (0, 2) - 1.6 (0.6, 0.8) = (-0.96, 0.72)."""
    made = {kind: KINDS[kind](X, S, DRAWS)[0].tolist() for kind in KINDS}
    assert made["sae"] == [3, 0]
    assert made["random_error"] == pytest.approx([3, 8])
    assert made["covariance"] == pytest.approx([7, 4])
    assert made["mixture"] == pytest.approx([3 + 4 * 0.6, 4 + 4 * 0.8]), "(0, 4) + (3, 0) has the direction (0.6, 0.8)"
    across = [0.6 * 0.6 - 0.8 * 0.8, 0.6 * 0.8 + 0.8 * 0.6]
    assert made["random_cosine"] == pytest.approx([5 * each for each in across])
    assert made["random_cosine_norm"] == pytest.approx([3 * each for each in across])
    assert made["norm_only"] == pytest.approx([1.8, 2.4])
    assert made["sae_norm"] == pytest.approx([5, 0])


def test_cosines_are_as_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    x_ND, white_ND = torch.randn(2, 50, 7, generator=generator, dtype=torch.float64)
    wanted_N = torch.linspace(-1, 1, 50, dtype=torch.float64)
    assert torch.allclose(cosines(x_ND, at_cosine(x_ND, wanted_N, white_ND)), wanted_N, atol=1e-12)


def test_draws_are_like_the_activations() -> None:
    """Activations (±1, ±2) about (10, 0): variances 1 and 4, no covariance; then with what correlates them."""
    x_ND = torch.tensor([[11.0, 2.0], [9.0, -2.0], [11.0, -2.0], [9.0, 2.0]]).double()
    gaussian = Gaussian.of(x_ND.sum(0), x_ND.T @ x_ND, 4)
    assert torch.allclose(gaussian.factor_DD @ gaussian.factor_DD.T, torch.diag(torch.tensor([1.0, 4.0]).double()))
    draws = Draws.of(gaussian, torch.zeros(20_000, 2).double(), seed=1)
    assert torch.allclose(draws.covariant_ND.T.cov(), torch.diag(torch.tensor([1.0, 4.0]).double()), atol=0.1)
    assert draws.mean_D.tolist() == [10, 0]


@pytest.mark.parametrize("label", ["topk-l0_3-w24-L1-s0", "gated-l0_3-w40-L2-s1"])
@pytest.mark.parametrize("position", [None, 5])
def test_by_plain_hooks(position: int | None, label: str, trained: Path, llama_folder: Path) -> None:
    sae = in_float64(trained, label)
    saes = [sae]
    session, config = Session.of(saes), Config(list(KINDS), [0.7], position, 3, 2)
    found = read({"a": run(session, saes, config)}, session.streams.batches)["a"]
    plain, place_T, layer = PlainModel(llama_folder, trained), torch.arange(16), sae.member.site.layer
    here_RT = plain.counted_RT & ((place_T == position) if position is not None else True)
    measured_RT = None
    if position is not None:
        measured_RT = here_RT.any(1, keepdim=True) & (place_T >= position) & (place_T <= position + 3)
    draws = all_draws(session, sae.spliced.hook, here_RT, plain.activation(layer)[plain.counted_RT])

    def put(kind: str) -> Change:
        def change(x_RTD: Tensor, _: Tensor) -> Tensor:
            x_ND, changed_RTD = x_RTD[here_RT], x_RTD.clone()
            if kind == "zero":
                changed_RTD[here_RT] = 0
            elif kind == "mean":
                changed_RTD[here_RT] = draws.mean_D
            elif kind == "cosine_0.7":
                direction_ND = at_cosine(x_ND, torch.full_like(x_ND[:, 0], 0.7), draws.white_ND)
                changed_RTD[here_RT] = x_ND.norm(dim=1, keepdim=True) * direction_ND
            else:
                changed_RTD[here_RT] = KINDS[kind](x_ND, sae.sae.decode(sae.sae.encode(x_ND)), draws)
            return changed_RTD

        return change

    numbers = found.members[label]
    clean = plain.kl_and_ce(layer, lambda x_RTD, _: x_RTD, measured_RT)[1]
    for kind in KINDS:
        kl, ce = plain.kl_and_ce(layer, put(kind), measured_RT)
        assert numbers[f"kl_{kind}"].value == pytest.approx(kl, rel=1e-6), kind
        assert numbers[f"ce_delta_{kind}"].value == pytest.approx(ce - clean, rel=1e-6), kind
    for kind in ("zero", "mean", "cosine_0.7"):
        kl, _ = plain.kl_and_ce(layer, put(kind), measured_RT)
        assert found.numbers[f"{sae.spliced.hook} kl_{kind}"].value == pytest.approx(kl, rel=1e-6), kind
    ratio = numbers["kl_sae"].value / numbers["kl_random_error"].value
    assert numbers["kl_over_random_error"].value == pytest.approx(ratio)


def all_draws(session: Session, hook: str, here_RT: Tensor, x_ND: Tensor) -> Draws:
    """Those of all batches, one below the other. The covariance is that of the activations; which root of it is taken
    is the analysis's own."""
    sums, count = session.kept.zeros(f"products/0/{hook}", 0), session.kept.zeros(f"count/0/{hook}", 0)
    own = Gaussian.of(sums[0], sums[1:], count.item())
    assert torch.allclose(own.mean_D, x_ND.mean(0))
    assert torch.allclose(own.factor_DD @ own.factor_DD.T, x_ND.T.cov(correction=0))
    parts = [
        Draws.of(own, torch.zeros(int(here_bT.sum()), x_ND.shape[1]).double(), draw_seed(2, 16 * number))
        for number, here_bT in enumerate(here_RT.split(16))
    ]
    return Draws(torch.cat([p.white_ND for p in parts]), torch.cat([p.covariant_ND for p in parts]), own.mean_D)


def test_errors_in_a_bfloat16_model_are_as_asked(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put in place has a cosine of 0.99 with the activation, and the length of the SAE's error."""
    sae, real, seen = in_bfloat16(trained, "topk-l0_3-w24-L1-s0"), Batch.lost, []

    def lost(batch: Batch, label: str, values: Mapping[str, Tensor], *rest: Tensor | None) -> Lost:
        x_ND = batch.written(label, batch.replaced(label)).double()
        if "cosine_0.99" in values:
            seen.append(cosines(x_ND, values["cosine_0.99"].double()) - 0.99)
        else:
            made, error = ((values[name].double() - x_ND).norm(dim=1) for name in ("random_error", "sae"))
            seen.append(made / error - 1)
        return real(batch, label, values, *rest)

    monkeypatch.setattr(Batch, "lost", lost)
    session = Session.of([sae])
    read({"a": run(session, [sae], Config(["random_error"], [0.99], None, 0, 0))}, session.streams.batches)
    assert len(seen) == 6
    assert max(each.abs().max().item() for each in seen) < 1e-4


def test_errors_of_a_crosscoder_are_as_long_at_each_site(
    two_models: Mapping[str, FinishedSae], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its passes are of one site each, whose errors may be of other sizes; so are those of its training compute."""
    sae, real, seen = two_models["topk"], Batch.lost, {}

    def lost(batch: Batch, label: str, values: Mapping[str, Tensor], *rest: Tensor | None) -> Lost:
        x_2ND = torch.stack(batch.written(label, batch.replaced(label)).chunk(2, dim=1)).double()
        s_2ND = torch.stack(batch.coded(label)[1].chunk(2, dim=1)).double()
        for name, value_ND in values.items():
            made_2ND = torch.stack(value_ND.chunk(2, dim=1)).double()
            if name.startswith("random"):
                seen[name] = (made_2ND - x_2ND).norm(dim=2) / (s_2ND - x_2ND).norm(dim=2)
            elif name.startswith("cosine"):
                seen[name] = torch.cosine_similarity(made_2ND, x_2ND, dim=2) / 0.9
        return real(batch, label, values, *rest)

    monkeypatch.setattr(Batch, "lost", lost)
    session = Session.of([sae])
    asked = run(session, [sae], Config(["random_error"], [0.9], None, 0, 0))
    read({"a": asked}, session.streams.batches)
    compute_equivalent._add(Means(Kept(), "b", 100), next(session.streams.batches()), sae.label, 0)
    assert set(seen) == {"random_error", "cosine_0.9", "random"}
    assert all((each - 1).abs().max() < 1e-4 for each in seen.values())
