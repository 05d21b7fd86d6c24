"""A folded member on raw activations is the trained one on c (x - mean), with unit decoder rows, in raw units."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sae_sweep.architectures.maths import maths_of
from sae_sweep.kernels.entries import Entries
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from tests.saes import reference, reference_topk
from tests.saes.kinds import BATCH_KINDS, KINDS, NO_PRE_BIAS, TOPK_KINDS
from tests.saes.problems import THRESHOLDS, D, Problem, problem, terms_of

MEAN_D = torch.linspace(-3, 5, D, dtype=torch.float64)


def unit_rows_where_assumed(made: Problem) -> Problem:
    """Some keep their rows at unit norm and rely on that in folding; every other kind is given rows of any norm."""
    if made.kind in TOPK_KINDS:
        for p in made.parameters:
            p["W_dec"] /= p["W_dec"].norm(dim=1, keepdim=True)
    return made


def trained(made: Problem, member: int) -> tuple[Tensor, Tensor]:
    """Codes and reconstructions of the inputs it trained on, by the papers; at inference where that differs."""
    p, config = made.parameters[member], made.configs[member]
    x_BD, target_BD = made.x_BD, made.x_BD
    if config.lookup != "none":
        table = p if made.lookup is None else {"lookup": made.lookup[member]}
        x_BD, target_BD = reference.tokenized(table, x_BD, made.token_B, config.lookup_subtract)
    if made.kind in BATCH_KINDS:
        f_BF, x_hat_BD = reference_topk.inference(p, x_BD, THRESHOLDS[member])
    else:
        terms = terms_of(config, p, x_BD, made.dead[member], member)
        f_BF, x_hat_BD = terms.f_BF, terms.x_hat_BD
    return f_BF, x_hat_BD + made.x_BD - target_BD


def check(made: Problem, scale: float, mean_D: Tensor | None) -> None:
    raw_BD = made.x_BD / scale + (0 if mean_D is None else mean_D)  # so that what was trained on is c (raw - mean)
    bank, token_B = made.bank(), None if made.configs[0].lookup == "none" else made.token_B
    for member, p in enumerate(made.parameters):
        sae = bank.fold(member, scale, mean_D)
        expected_BF, expected_BD = trained(made, member)
        f_BF = sae.encode(raw_BD, token_B)
        torch.testing.assert_close(f_BF, expected_BF * p["W_dec"].norm(dim=1) / scale, rtol=1e-10, atol=1e-10 / scale)
        assert torch.equal(f_BF > 0, expected_BF > 0)
        raw_hat_BD = expected_BD / scale + (0 if mean_D is None else mean_D)
        torch.testing.assert_close(sae.decode(f_BF, token_B), raw_hat_BD, rtol=1e-10, atol=1e-10)
        fired, hat_BD = sae.coded(raw_BD, token_B)
        assert torch.equal(listed(fired, sae.width), f_BF)
        assert bool((fired.value_N > 0).all())
        torch.testing.assert_close(hat_BD, raw_hat_BD, rtol=1e-10, atol=1e-10)


def listed(entries: Entries, width: int) -> Tensor:
    """[B, width]: the entries where they are, and 0 elsewhere."""
    row_N = torch.arange(len(entries.offsets) - 1).repeat_interleave(entries.offsets.diff())
    values_BF = torch.zeros(len(entries.offsets) - 1, width, dtype=entries.value_N.dtype)
    return values_BF.index_put((row_N, entries.column_N.long()), entries.value_N)


@pytest.mark.parametrize(
    ("density", "scale", "mean_D"),
    [("half", 13.0, None), ("half", 0.25, MEAN_D), ("none", 0.25, MEAN_D), ("all", 1.0, None)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_folded_is_unfolded_in_raw_units(kind: str, density: str, scale: float, mean_D: Tensor | None) -> None:
    check(unit_rows_where_assumed(problem(kind, density)), scale, mean_D)


@pytest.mark.parametrize(
    ("lookup", "subtract", "mean_D"), [("learned", True, MEAN_D), ("frozen", True, None), ("learned", False, None)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_folded_too(kind: str, lookup: str, subtract: bool, mean_D: Tensor | None) -> None:
    check(unit_rows_where_assumed(problem(kind)).tokenized(lookup, subtract), 0.25, mean_D)


@pytest.mark.parametrize("kind", KINDS)
def test_folded_shapes_and_norms(kind: str) -> None:
    made = unit_rows_where_assumed(problem(kind))
    before = [{name: t.clone() for name, t in p.items()} for p in made.parameters]
    sae = made.bank().fold(0, 2.0)
    width, d = made.parameters[0]["W_dec"].shape
    assert (sae.d, sae.width, sae.subtract_b_dec) == (d, width, kind not in NO_PRE_BIAS)
    assert sae.tensors["W_enc"].shape == (d, width)
    assert sae.tensors["W_dec"].shape == (width, d)
    torch.testing.assert_close(sae.tensors["W_dec"].norm(dim=1), torch.ones(width, dtype=torch.float64))
    assert all(t.is_contiguous() for t in sae.tensors.values())
    assert all(
        torch.equal(p[name], t) for p, own in zip(made.parameters, before, strict=True) for name, t in own.items()
    )


@pytest.mark.parametrize(("lookup", "mean_D"), [("none", None), ("learned", MEAN_D), ("frozen", None)])
@pytest.mark.parametrize("kind", KINDS)
def test_folding_copies(kind: str, lookup: str, mean_D: Tensor | None) -> None:
    """A judged member must not change when training goes on, whatever the scale."""
    made = problem(kind) if lookup == "none" else problem(kind).tokenized(lookup, subtract=False)
    bank = made.bank()
    sae = bank.fold(0, 1.0, mean_D)
    tensors = sae.tensors if sae.lookup is None else {**sae.tensors, "lookup": sae.lookup.rows_VD}
    before = {name: t.clone() for name, t in tensors.items()}
    for t in (*bank.storage.values(), *bank.buffers.values()):
        t.add_(1)
    assert all(torch.equal(tensors[name], t) for name, t in before.items())


@pytest.mark.parametrize("kind", BATCH_KINDS)
def test_one_threshold_for_all_latents(kind: str) -> None:
    """The running mean of the batches' smallest, in raw units; the form is JumpReLU's."""
    made = unit_rows_where_assumed(problem(kind))
    for member, threshold in enumerate(THRESHOLDS):
        sae = made.bank().fold(member, 0.5)
        assert sae.form == JumpReluForm()
        assert sae.tensors["threshold"].tolist() == pytest.approx([2 * threshold] * sae.width)
    assert maths_of(made.configs[0]).threshold_mode == "ema"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in BATCH_KINDS])
def test_trained_thresholds_are_nobodys_estimate(kind: str) -> None:
    assert maths_of(problem(kind).configs[0]).threshold_mode is None


def test_jumprelu_thresholds_are_in_units_of_unit_rows() -> None:
    made = problem("jumprelu")
    p = made.parameters[0]
    found = made.bank().fold(0, 4.0).tensors["threshold"]
    torch.testing.assert_close(found, p["log_threshold"].exp() * p["W_dec"].norm(dim=1) / 4)


def test_a_jump_threshold_is_strict() -> None:
    """H(0) = 0, in training and after."""
    one = torch.ones(1, 1, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    p = {"W_enc": one, "W_dec": one, "b_dec": zero, "b_enc": zero, "log_threshold": zero}
    made = replace(problem("jumprelu").alone(0), parameters=[p], dead=[torch.zeros(1, dtype=torch.bool)])
    made.x_BD = torch.tensor([[-1.0], [0.0], [1.0], [1.5]], dtype=torch.float64)
    assert made.bank().fold(0, 1.0).encode(made.x_BD).flatten().tolist() == [0, 0, 0, 1.5]
    assert made.gradients(dense=False)[0].fired_F.tolist() == [1]


def test_a_tokenized_sae_asks_for_tokens() -> None:
    sae = problem("bricken").tokenized("learned", subtract=False).bank().fold(0, 1.0)
    with pytest.raises(ValueError, match="token"):
        sae.decode(torch.zeros(2, sae.width, dtype=torch.float64))
