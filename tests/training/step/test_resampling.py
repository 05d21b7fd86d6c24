"""Resampling as Bricken et al. 2023 describe it: which rows change, to what, and on which inputs."""

from math import log

import pytest
import torch
from torch import Tensor

from sae_sweep.architectures.maths import maths_of
from sae_sweep.saes.bank import Bank, Batch
from sae_sweep.training.step.optimizer import Adam
from sae_sweep.training.step.resampling import resample
from tests.saes import problems, reference
from tests.saes.kinds import KINDS as ALL_KINDS
from tests.saes.kinds import TOPK_KINDS
from tests.training.refusing import Refusing, count

KINDS = [kind for kind in ALL_KINDS if kind not in TOPK_KINDS]
NORMS = {"april": 0.1, "jumprelu_anthropic": 3**-0.5}
MEMBER = 1
START, WIDTH = problems.WIDTHS[0], problems.WIDTHS[1]
DEAD = (0, 3, 8)
COEFFICIENT = 0.7


def filled(kind: str) -> tuple[Bank, Adam, Tensor]:
    """A bank with moments that are nowhere 0, and inputs."""
    made = problems.problem(kind)
    bank = made.bank()
    adam = Adam(bank)
    for moment in adam.moments.values():
        for t in moment.values():
            t.fill_(0.5)
    return bank, adam, made.x_BD


def dead_mask(*latents: int) -> Tensor:
    return torch.zeros(WIDTH, dtype=torch.bool).index_fill_(0, torch.tensor(latents, dtype=torch.int64), True)


def call(bank: Bank, adam: Adam, dead_F: Tensor, x_BD: Tensor, seed: int = 0) -> int:
    generator = torch.Generator().manual_seed(seed)
    return len(resample(bank, adam, MEMBER, dead_F, batch_of(x_BD), COEFFICIENT, generator))


def batch_of(x_BD: Tensor) -> Batch:
    return Batch(x_BD, torch.arange(len(x_BD)) % problems.VOCABULARY)


def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in tensors.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_dead_rows_are_written_as_the_paper_says(kind: str) -> None:
    bank, adam, x_BD = filled(kind)
    before = copies(bank.member(bank.storage, MEMBER))
    assert call(bank, adam, dead_mask(*DEAD), x_BD) == len(DEAD)
    after = bank.member(bank.storage, MEMBER)
    directions_BD = x_BD - before["b_dec"]
    directions_BD = directions_BD / directions_BD.norm(dim=1, keepdim=True)
    alive = [i for i in range(WIDTH) if i not in DEAD]
    encoder_norm = 0.2 * before["W_enc"][alive].norm(dim=1).mean()
    for latent in DEAD:
        row = after["W_dec"][latent]
        unit = row / row.norm()
        assert float((directions_BD - unit).norm(dim=1).min()) < 1e-12  # the direction of one of the inputs
        assert row.norm().item() == pytest.approx(NORMS.get(kind, 1.0), rel=1e-12)
        torch.testing.assert_close(after["W_enc"][latent], encoder_norm * unit)
        for name in set(after) - {"W_enc", "W_dec", "b_dec"}:
            expected = log(0.1) if name == "log_threshold" else 0  # the config's first threshold
            assert before[name][latent] != expected
            assert after[name][latent].item() == pytest.approx(expected), name


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_else_changes(kind: str) -> None:
    bank, adam, x_BD = filled(kind)
    before = copies(bank.storage)
    call(bank, adam, dead_mask(*DEAD), x_BD)
    touched = torch.zeros(sum(problems.WIDTHS), dtype=torch.bool)
    touched[[START + latent for latent in DEAD]] = True
    assert torch.equal(bank.storage["b_dec"], before["b_dec"])
    for name in set(before) - {"b_dec"}:
        changed_F = (bank.storage[name] != before[name]).view(len(touched), -1)
        assert torch.equal(changed_F.any(1), touched), name
        for moment in adam.moments.values():
            zeroed_F = (moment[name] == 0).view(len(touched), -1)
            assert torch.equal(zeroed_F.all(1), touched), name
            assert torch.equal(zeroed_F.any(1), touched), name
    for moment in adam.moments.values():
        assert (moment["b_dec"] == 0.5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_none_dead_changes_nothing(kind: str) -> None:
    bank, adam, x_BD = filled(kind)
    before = copies(bank.storage)
    assert call(bank, adam, dead_mask(), x_BD) == 0
    assert all(torch.equal(bank.storage[name], t) for name, t in before.items())
    assert all((t == 0.5).all() for moment in adam.moments.values() for t in moment.values())


@pytest.mark.parametrize("subtract", [False, True])
def test_a_direction_is_what_b_dec_and_the_table_leave_over(subtract: bool) -> None:
    made = problems.problem("bricken").tokenized("learned", subtract)
    bank, batch = made.bank(), batch_of(made.x_BD)
    own = {name: t.clone() for name, t in bank.member(bank.storage, MEMBER).items()}
    adam = Adam(bank)
    resample(bank, adam, MEMBER, dead_mask(*DEAD), batch, COEFFICIENT, torch.Generator().manual_seed(0))
    left_BD = batch.x_BD - own["b_dec"] - own["lookup"][batch.tokens_B]
    left_BD = left_BD / left_BD.norm(dim=1, keepdim=True)
    after = bank.member(bank.storage, MEMBER)
    for latent in DEAD:
        assert float((left_BD - after["W_dec"][latent]).norm(dim=1).min()) < 1e-12
    assert torch.equal(after["lookup"], own["lookup"])


def test_all_dead_takes_norm_one_for_the_living() -> None:
    bank, adam, x_BD = filled("bricken")
    assert call(bank, adam, dead_mask(*range(WIDTH)), x_BD) == WIDTH
    norms_F = bank.member(bank.storage, MEMBER)["W_enc"].norm(dim=1)
    torch.testing.assert_close(norms_F, torch.full((WIDTH,), 0.2, dtype=torch.float64))


def test_the_generator_decides() -> None:
    found = []
    for seed in (0, 0, 1):
        bank, adam, x_BD = filled("bricken")
        call(bank, adam, dead_mask(*DEAD), x_BD, seed)
        found.append(bank.storage["W_dec"].clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("kind", ["bricken", "april"])
def test_inputs_are_drawn_with_the_square_of_their_loss(kind: str) -> None:
    """Five inputs, one dead latent, drawn 1,500 times: shares are loss^2 / sum of loss^2, loss with its penalty."""
    draws = 1_500
    made = problems.problem(kind)
    x_BD = made.x_BD[[0, 7, 11, 17, 30]]
    if kind == "bricken":  # whose rows are on the unit sphere in training
        made.parameters[MEMBER]["W_dec"] /= made.parameters[MEMBER]["W_dec"].norm(dim=1, keepdim=True)
    p = reference.leaves(made.parameters[MEMBER])
    terms = getattr(reference, kind)(p, x_BD)
    loss_B = ((x_BD - terms.x_hat_BD) ** 2).sum(1) + COEFFICIENT * (terms.f_BF * p["W_dec"].norm(dim=1)).sum(1)
    share_B = (loss_B**2 / (loss_B**2).sum()).detach()
    directions_BD = x_BD - made.parameters[MEMBER]["b_dec"]
    directions_BD = directions_BD / directions_BD.norm(dim=1, keepdim=True)
    generator = torch.Generator().manual_seed(5)
    counts_B = torch.zeros(5, dtype=torch.float64)
    for _ in range(draws):
        bank = Bank(maths_of(made.configs[0]), made.configs[1:2], [copies(made.parameters[MEMBER])])
        resample(bank, Adam(bank), 0, dead_mask(2), batch_of(x_BD), COEFFICIENT, generator)
        row = bank.storage["W_dec"][2]
        counts_B[(directions_BD @ row).argmax()] += 1
    deviation_B = (draws * share_B * (1 - share_B)).sqrt()
    assert ((counts_B - draws * share_B).abs() < 4 * deviation_B + 1).all()
    assert share_B.max() > 2 * share_B.min()  # so that another law would show
    uniform = (counts_B - draws / 5).abs() > 6 * (draws * 0.16) ** 0.5
    assert uniform.any()


@pytest.mark.parametrize("inputs", [40, 10])
def test_revived_latents_are_no_twins(inputs: int) -> None:
    """Two latents set on one input have one gradient for ever: they stay one latent, counted twice."""
    made = problems.problem("bricken")
    width = 30
    p = problems.parameters_of("bricken", width, made.x_BD, "half", torch.Generator().manual_seed(1))
    bank = Bank(maths_of(made.configs[0]), made.configs[:1], [p])
    dead_F = torch.arange(width) < 20
    batch = batch_of(made.x_BD[:inputs])
    resample(bank, Adam(bank), 0, dead_F, batch, COEFFICIENT, torch.Generator().manual_seed(0))
    assert len({tuple(row.tolist()) for row in bank.storage["W_dec"]}) == width


@pytest.mark.parametrize("kind", KINDS)
def test_where_memory_does_not_last_nothing_has_changed(kind: str) -> None:
    """At any operator, those that change something among them."""
    bank, adam, x_BD = filled(kind)
    tensors = {**bank.storage, **adam.tensors()}
    before = copies(tensors)
    total = count(lambda: call(bank, adam, dead_mask(*DEAD), x_BD))
    expected = copies(tensors)
    for at in range(total):
        for name, tensor in tensors.items():
            tensor.copy_(before[name])
        with pytest.raises(torch.OutOfMemoryError), Refusing(at):
            call(bank, adam, dead_mask(*DEAD), x_BD)
        names = [name for name, tensor in tensors.items() if not torch.equal(tensor, before[name])]
        assert all(name.startswith(("first_moment/", "second_moment/")) for name in names), at
        call(bank, adam, dead_mask(*DEAD), x_BD)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items()), at
