"""Loss terms and the gradient of every parameter are those of the papers' equations, on both routes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sae_sweep.architectures.jumprelu.facts import JumpReluConfig
from sae_sweep.architectures.maths import maths_of
from sae_sweep.saes.base import Clock, Losses
from sae_sweep.saes.encoders import choose
from tests.saes import reference, reference_topk
from tests.saes.kinds import KINDS, TOPK_KINDS
from tests.saes.problems import CLOCKS, COEFFICIENTS, DENSITIES, THRESHOLDS, TOKENS, WIDTHS, Problem, problem

AUXILIARY = (
    *("gated", "gated_decoder_norm", "matryoshka", "jumprelu_anthropic"),
    *("hierarchical_topk", "ortsae", "jumprelu_gemma_scope_2"),
)
"""The kinds with an auxiliary term even where no latent is dead."""
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
WHOLE, SCREENED, DENSE = "whole", "screened", "dense"
"""The routes: the sparse one computes the whole product, or only what bounds leave."""
CASES = (
    *((density, WHOLE, torch.float64) for density in DENSITIES),
    *(("half", route, torch.float64) for route in (SCREENED, DENSE)),
    ("half", SCREENED, torch.float32),
)
"""Every density, route and precision; `test_sparse_equals_dense` has the other pairs of density and route."""
tables = pytest.mark.parametrize(
    ("lookup", "dense", "dtype"),
    [("learned", WHOLE, torch.float64), ("frozen", DENSE, torch.float64), ("learned", SCREENED, torch.float32)],
    indirect=["dense"],
)
routes = pytest.mark.parametrize("dense", [WHOLE, SCREENED, DENSE], indirect=True)


@pytest.fixture
def dense(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a route is the dense one; the sparse one is set up as named."""
    monkeypatch.setattr(choose, "screens", lambda x_BD: request.param == SCREENED)
    return bool(request.param == DENSE)


def close(found: Tensor, expected: Tensor, tolerance: float, floor: float = 0.0) -> bool:
    """Norm-wise, to the size of `floor` at least; what is 0 must be 0 without one."""
    error = (found.detach().double() - expected.detach()).norm()
    return bool(error <= tolerance * max(float(expected.detach().norm()), floor))


def floors(made: Problem, member: int) -> dict[str, float]:
    """What cancels in anthropic's auxiliary term where every latent fires, and in its gradients: sums over all."""
    config = made.configs[member]
    if not isinstance(config, JumpReluConfig) or config.variant == "deepmind":
        return {}
    p = reference.leaves(made.parameters[member])
    below = p["log_threshold"].exp() - made.x_BD.double() @ p["W_enc"].T - p["b_enc"]
    whole = config.preactivation_coefficient * (below * p["W_dec"].norm(dim=1)).sum(1).mean()
    sizes = {name: float(g.norm()) for name, g in reference.gradients(p, whole).items()}
    return sizes | {"auxiliary": abs(whole.item())}


def check_against_reference(made: Problem, dense: bool, tolerance: float) -> Losses:
    losses, gradients = made.gradients(dense)
    total_M = losses.total(torch.tensor(COEFFICIENTS, dtype=made.x_BD.dtype))
    start = 0
    for member, found in enumerate(gradients):
        terms, expected = made.expected(member)
        floor = floors(made, member)
        assert close(losses.reconstruction_M[member], terms.reconstruction, tolerance)
        assert close(total_M[member], terms.total(COEFFICIENTS[member]), tolerance)
        if losses.sparsity_M is not None:
            assert close(losses.sparsity_M[member], terms.sparsity, tolerance)
        if losses.auxiliary_M is not None:
            assert close(losses.auxiliary_M[member], terms.auxiliary, tolerance, floor.get("auxiliary", 0))
        width = len(terms.f_BF[0])
        assert torch.equal(losses.fired_F[start : start + width].double(), (terms.f_BF > 0).sum(0).double())
        start += width
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            assert gradient.shape == made.parameters[member][name].shape
            assert close(gradient, expected[name], tolerance, floor.get(name, 0)), f"{name} of member {member}"
    return losses


@pytest.mark.parametrize(("density", "dense", "dtype"), CASES, indirect=["dense"])
@pytest.mark.parametrize("kind", KINDS)
def test_terms_and_gradients_are_the_papers(kind: str, density: str, dense: bool, dtype: torch.dtype) -> None:
    losses = check_against_reference(problem(kind, density, dtype), dense, TOLERANCE[dtype])
    assert (losses.sparsity_M is None) == (kind in TOPK_KINDS)
    assert (losses.auxiliary_M is not None) == (kind in AUXILIARY)


@pytest.mark.parametrize(("density", "dense", "dtype"), CASES, indirect=["dense"])
@pytest.mark.parametrize("kind", TOPK_KINDS)
def test_auxk_of_one_member_with_dead_latents(kind: str, density: str, dense: bool, dtype: torch.dtype) -> None:
    made = problem(kind, density, dtype, dead=True)
    losses = check_against_reference(made, dense, TOLERANCE[dtype])
    alive = problem(kind, density, dtype).gradients(dense)[0].auxiliary_M
    assert losses.auxiliary_M is not None
    added_M = losses.auxiliary_M - (0 if alive is None else alive)
    assert added_M[[0, 2]].tolist() == [0, 0]
    assert added_M[1] > 0


@pytest.mark.parametrize("dead", [False, True])
@routes
def test_sampled_prefixes(dead: bool, dense: bool) -> None:
    check_against_reference(problem("matryoshka", dead=dead, prefixes="sampled", groups=5), dense, 1e-10)


@routes
@pytest.mark.parametrize("kind", ["bricken", "april", "topk", "ortsae", "jumprelu", "jumprelu_anthropic"])
def test_prefixes_of_any_activation(kind: str, dense: bool) -> None:
    """Each prefix reconstructs alone, whatever decides what fires; fixed or drawn, dead latents or none."""
    check_against_reference(problem(kind, groups=3, dead=kind in TOPK_KINDS), dense, 1e-10)
    check_against_reference(problem(kind, groups=5, prefixes="sampled"), dense, 1e-10)


@routes
@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka"])
def test_a_batch_keeps_k_a_token_on_average_and_not_on_each(kind: str, dense: bool) -> None:
    made = problem(kind, "all")
    made.configs = [replace(config, k=k) for config, k in zip(made.configs, (5, 1, 3), strict=True)]
    losses = check_against_reference(made, dense, 1e-10)
    kept = [int(f.sum()) for f in losses.fired_F.split(WIDTHS)]
    assert kept == [TOKENS * k for k in (5, 1, 3)]
    f_BF = made.expected(0)[0].f_BF
    assert len(set((f_BF > 0).sum(1).tolist())) > 1


@routes
@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka"])
def test_ties_at_the_cut_are_all_kept(kind: str, dense: bool) -> None:
    """Small whole numbers, of which many are equal: 80 to be kept, and more are as large as the last."""
    made = problem(kind)
    made.x_BD = made.x_BD.round()
    for p in made.parameters:
        p["W_enc"], p["b_dec"], p["b_enc"] = (2 * p["W_enc"]).round(), p["b_dec"].round(), 0 * p["b_enc"]
    made.configs = [replace(config, k=2) for config in made.configs]
    losses = check_against_reference(made, dense, 1e-10)
    assert max(int(f.sum()) for f in losses.fired_F.split(WIDTHS)) > 2 * TOKENS


@pytest.mark.parametrize("density", ["none", "half"])
@routes
@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka"])
def test_the_inference_threshold_moves_by_the_smallest_kept(kind: str, density: str, dense: bool) -> None:
    """Nothing kept moves nothing; the first step's value is taken as it is."""
    made = problem(kind, density)
    found_M = made.gradients(dense)[0].buffers["threshold"]
    expected = []
    for member, clock in enumerate(CLOCKS):
        f_BF = made.expected(member)[0].f_BF
        weight = max(1 / (clock.step + 1), 1 / 50)
        before = THRESHOLDS[member]
        expected.append(before)
        if bool((f_BF > 0).any()):
            expected[-1] += weight * (reference_topk.smallest_kept(f_BF) - before)
    assert found_M.tolist() == pytest.approx(expected, rel=1e-12)
    assert (expected == [*THRESHOLDS]) == (density == "none")


@routes
def test_the_inference_threshold_is_a_plain_mean_at_first(dense: bool) -> None:
    made = problem("batchtopk")
    smallest = [[reference_topk.smallest_kept(made.expected(member)[0].f_BF)] for member in range(3)]
    maths, threshold_M = maths_of(made.configs[0]), torch.full((3,), 123.0, dtype=torch.float64)
    for step in range(12):
        made.x_BD = made.x_BD + 0.1
        for member in range(3):
            smallest[member].append(reference_topk.smallest_kept(made.expected(member)[0].f_BF))
        now = replace(made.step(dense), clocks=(Clock(step, 1000, 0),) * 3, buffers={"threshold": threshold_M})
        threshold_M = maths.losses(made.leaves(), made.x_BD, made.x_BD[:, None], now).buffers["threshold"]
    expected = [sum(values[1:]) / 12 for values in smallest]
    assert threshold_M.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_densities_are_what_they_are_called(kind: str) -> None:
    shares = {}
    for density in DENSITIES:
        made = problem(kind, density)
        fired = made.gradients(dense=False)[0].fired_F.sum() / made.x_BD.shape[0]
        shares[density] = float(fired) / sum(len(p["W_enc"]) for p in made.parameters)
    assert shares["none"] == 0
    assert shares["all"] == 1
    assert 0 < shares["rare"] < 0.005
    assert 0.2 < shares["half"] < 0.7


@pytest.mark.parametrize("dense", [WHOLE, SCREENED], indirect=True)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("kind", KINDS)
def test_sparse_equals_dense(kind: str, density: str, dense: bool) -> None:
    made = problem(kind, density, dead=True)
    sparse, whole = made.gradients(dense), made.gradients(dense=True)
    for name in ("reconstruction_M", "sparsity_M", "auxiliary_M", "fired_F"):
        torch.testing.assert_close(getattr(sparse[0], name), getattr(whole[0], name), rtol=1e-12, atol=1e-14)
    for own, other in zip(sparse[1], whole[1], strict=True):
        for name, gradient in own.items():
            torch.testing.assert_close(gradient, other[name], rtol=1e-11, atol=1e-13)


@routes
@pytest.mark.parametrize("kind", KINDS)
def test_a_member_among_others_has_the_gradients_it_has_alone(kind: str, dense: bool) -> None:
    made = problem(kind, "half", dead=True)
    together = made.gradients(dense)[1]
    alone = made.alone(0).gradients(dense)[1][0]
    for name, gradient in together[0].items():
        torch.testing.assert_close(gradient, alone[name], rtol=1e-12, atol=1e-14)


@tables
@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_tokens(kind: str, lookup: str, dense: bool, dtype: torch.dtype) -> None:
    """What is to be reconstructed is x less the token's row; a learned row has its gradient."""
    made = problem(kind, "half", dtype, dead=True).tokenized(lookup, subtract=False)
    check_against_reference(made, dense, TOLERANCE[dtype])


@tables
@pytest.mark.parametrize("kind", KINDS)
def test_a_table_that_the_encoder_does_not_see(kind: str, lookup: str, dense: bool, dtype: torch.dtype) -> None:
    """The encoder sees x less the row too, so it pulls on the row as well."""
    made = problem(kind, "half", dtype, dead=True).tokenized(lookup, subtract=True)
    for member in range(3):
        check_against_reference(made.alone(member), dense, TOLERANCE[dtype])
