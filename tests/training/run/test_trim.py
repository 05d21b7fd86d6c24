"""The last correction of `sae.l0`: exact on the activations it looks at, by one number, in the form's own way."""

from dataclasses import replace
from itertools import cycle

import pytest
import torch
from torch import Tensor

from sae_sweep.plan.constants import rows_together
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.training.run.trim import mean_l0, trimmed
from tests.saes import reference
from tests.saes.kinds import KINDS
from tests.saes.problems import TOKENS, problem

FORMS = [kind for kind in KINDS if kind not in ("topk", "hierarchical_topk")]
CHANGED = {"standard": "b_enc", "gated": "b_gate", "jumprelu": "threshold"}


def inference(kind: str) -> tuple[InferenceSae, Tensor, Tensor]:
    """The widest member, its raw activations and their tokens; float64."""
    made = problem(kind)
    for p in made.parameters:
        p["W_dec"] /= p["W_dec"].norm(dim=1, keepdim=True)
    return made.bank().fold(0, 0.25), made.x_BD / 0.25, made.token_B


def l0_of(sae: InferenceSae, x_BD: Tensor, tokens_B: Tensor) -> float:
    return int((sae.encode(x_BD, tokens_B) > 0).sum()) / len(x_BD)


def scores(sae: InferenceSae, x_BD: Tensor) -> Tensor:
    """[B, F]: what decides, by the papers' forms: the one number moves a cut through these."""
    t = sae.tensors
    z_BF = (x_BD - t["b_dec"] if sae.subtract_b_dec else x_BD) @ t["W_enc"]
    if sae.form.saelens == "gated":
        could = z_BF * t["r_mag"].exp() + t["b_mag"] > 0
        return torch.where(could, z_BF + t["b_gate"], -torch.inf)
    pre_BF = z_BF + t["b_enc"]
    return pre_BF / t["threshold"] if sae.form.saelens == "jumprelu" else pre_BF


@pytest.mark.parametrize(("kind", "l0"), [*zip(FORMS, cycle((0.5, 3.0, 7.25, 9.0)))])
def test_the_wanted_number_fires(kind: str, l0: float) -> None:
    """More or fewer than before, whatever the form; and those with the largest scores."""
    sae, x_BD, tokens_B = inference(kind)
    made = trimmed(sae, x_BD, tokens_B, l0)
    assert l0_of(made, x_BD, tokens_B) == l0
    low, high = reference.quantile_cut(scores(sae, x_BD), l0)
    fires_BF = made.encode(x_BD, tokens_B) > 0
    assert torch.equal(fires_BF, scores(sae, x_BD) >= high)
    assert low < high


@pytest.mark.parametrize("kind", FORMS)
def test_one_number_of_one_tensor(kind: str) -> None:
    sae, x_BD, tokens_B = inference(kind)
    before = {name: t.clone() for name, t in sae.tensors.items()}
    made = trimmed(sae, x_BD, tokens_B, 2.0)
    assert all(torch.equal(sae.tensors[name], t) for name, t in before.items())  # the trained one stays
    changed = CHANGED[sae.form.saelens]
    assert {name for name, t in made.tensors.items() if not torch.equal(t, before[name])} == {changed}
    moved = made.tensors[changed]
    by = moved / before[changed] if changed == "threshold" else moved - before[changed]
    torch.testing.assert_close(by, by[:1].expand_as(by))
    low, high = reference.quantile_cut(scores(sae, x_BD), 2.0)
    cut = by[0] if changed == "threshold" else -by[0]
    assert low < cut < high


def test_a_topk_fires_k_whatever_its_numbers() -> None:
    sae, x_BD, tokens_B = inference("topk")
    assert trimmed(sae, x_BD, tokens_B, 2.0) is sae


@pytest.mark.parametrize("kind", FORMS)
def test_nothing_helps(kind: str) -> None:
    """Less than one latent on any token."""
    sae, x_BD, tokens_B = inference(kind)
    assert trimmed(sae, x_BD, tokens_B, 0.4 / TOKENS) is sae


@pytest.mark.parametrize("kind", FORMS)
def test_more_than_can_fire_gives_what_can(kind: str) -> None:
    """All entries that could fire but one, and so more than before."""
    sae, x_BD, tokens_B = inference(kind)
    made = trimmed(sae, x_BD, tokens_B, sae.width + 1.0)
    could = scores(sae, x_BD).isfinite() if sae.form.saelens != "jumprelu" else scores(sae, x_BD) > 0
    assert l0_of(made, x_BD, tokens_B) == (int(could[:, alive(sae, x_BD, tokens_B)].sum()) - 1) / TOKENS
    assert mean_l0(made, x_BD, tokens_B) == l0_of(made, x_BD, tokens_B) > l0_of(sae, x_BD, tokens_B)


def alive(sae: InferenceSae, x_BD: Tensor, tokens_B: Tensor) -> Tensor:
    return (sae.encode(x_BD, tokens_B) > 0).any(0)


@pytest.mark.parametrize("kind", FORMS)
def test_the_dead_stay_dead(kind: str) -> None:
    """However far below zero they are: waking them would move everyone that far."""
    sae, x_BD, tokens_B = inference(kind)
    bias = "b_gate" if sae.form.saelens == "gated" else "b_enc"
    silenced = replace(sae, tensors={**sae.tensors, bias: sae.tensors[bias].clone()})
    silenced.tensors[bias][:3] = -100
    made = trimmed(silenced, x_BD, tokens_B, sae.width - 1.0)
    assert not bool((made.encode(x_BD, tokens_B)[:, :3] > 0).any())
    assert l0_of(made, x_BD, tokens_B) >= l0_of(silenced, x_BD, tokens_B)


@pytest.mark.parametrize("subtract", [False, True])
def test_a_table_is_looked_up(subtract: bool) -> None:
    made = problem("bricken").tokenized("learned", subtract)
    sae, raw_BD = made.bank().fold(0, 0.25), made.x_BD / 0.25
    assert l0_of(trimmed(sae, raw_BD, made.token_B, 3.0), raw_BD, made.token_B) == 3


@pytest.mark.parametrize("kind", FORMS)
def test_many_rows_in_parts(kind: str) -> None:
    """Unlike parts included: all that fires is in the last rows."""
    sae, x_BD, tokens_B = inference(kind)
    whole = trimmed(sae, x_BD, tokens_B, 2.0)
    order = (sae.encode(x_BD, tokens_B) > 0).sum(1).argsort()
    parts = trimmed(sae, x_BD[order], tokens_B[order], 2.0, rows_at_once=8)
    for name, t in whole.tensors.items():
        torch.testing.assert_close(parts.tensors[name], t)


def test_a_latent_that_a_part_is_silent_of_counts_there() -> None:
    """Each latent fires in one of two parts alone. Six of eight margins are to be above the cut, which is between -0.2
    and -0.3, whatever parts there are."""
    eye = torch.eye(2, dtype=torch.float64)
    tensors = {"W_enc": eye, "W_dec": eye, "b_dec": torch.zeros(2).double(), "b_enc": torch.zeros(2).double()}
    sae, tokens_B = InferenceSae(ReluForm(), tensors, False), torch.zeros(4, dtype=torch.int64)
    x_BD = torch.tensor([[3.0, -0.1], [2.0, -0.2], [-0.3, 1.0], [-0.4, 2.0]]).double()
    for rows in (4, 2, 1):
        made = trimmed(sae, x_BD, tokens_B, 1.5, rows)
        assert l0_of(made, x_BD, tokens_B) == 1.5
        assert made.tensors["b_enc"].tolist() == pytest.approx([0.25, 0.25])


@pytest.mark.parametrize(("width", "rows"), [(64, 2_048), (16_384, 512), (10**6, 64)])
def test_wide_ones_are_looked_at_in_smaller_parts(width: int, rows: int) -> None:
    """A margin takes tens of bytes, and 2,048 rows of a million latents would take a hundred GB."""
    assert rows_together(width) == rows
    assert rows_together(width, 16) == 16
