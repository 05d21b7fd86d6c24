"""What a bank in training does around the maths: units, schedules, resampling, dead latents, divergence."""

from typing import Any

import pytest
import torch

from sae_sweep.saes.bank import Bank, Batch, Chunk
from sae_sweep.training.step import trainer as trainer_module
from sae_sweep.training.step.trainer import BankTrainer
from tests.training.fabricate import (
    D,
    activations,
    block,
    finish,
    member,
    parameters,
    silence,
    statistics,
    train,
    trainer,
)


def nothing() -> None:
    pass


def first_record(made: BankTrainer) -> dict[str, float]:
    return made.records[0].values


@pytest.mark.parametrize("scaled", ["none", "sqrt_d", "unit"])
@pytest.mark.parametrize("unit", ["sum", "mean_d", "mean_d_norm"])
def test_coefficient_units_by_hand(unit: str, scaled: str) -> None:
    """The loss sums over d: a coefficient for mean-over-d is d times too small, and so on."""
    x_BD = activations(256).double()  # block 0 is the calibration block
    norms_B = x_BD.norm(dim=1)
    c = {"none": 1.0, "sqrt_d": D**0.5 / norms_B.mean(), "unit": 1 / norms_B.square().mean().sqrt()}[scaled]
    factor = {"sum": 1.0, "mean_d": D, "mean_d_norm": D * c * norms_B.mean()}[unit]
    made = trainer([member("standard", sae_l1=0.02, sae_coefficient_unit=unit, sae_input_scale=scaled)])
    made.consume(block(0, rows=32), nothing)
    values = first_record(made)
    assert made.trained.inputs.scales[0] == pytest.approx(float(c), rel=1e-12)
    assert values["coefficient_optimised"] == pytest.approx(0.02 * float(factor), rel=1e-12)
    assert values["coefficient"] == pytest.approx(0.02, rel=1e-12)
    assert made.members[0].coefficient == pytest.approx(0.02, rel=1e-12)
    expected = values["reconstruction"] + 0.02 * float(factor) * values["sparsity"]
    assert values["loss"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scaled", ["none", "sqrt_d", "unit"])
def test_variance_is_that_of_the_inputs_trained_on(scaled: str) -> None:
    """Which AuxK's factor and the first guess of a steered coefficient are made of."""
    made = trainer([member("topk", sae_k=2, sae_input_scale=scaled)])
    x_BD = made.trained.inputs.scales[0] * activations(256).double()
    assert made.trained.variance == pytest.approx((x_BD - x_BD.mean(0)).square().sum(1).mean().item(), rel=1e-12)


def test_seed_is_the_members() -> None:
    made = trainer([member("gated", sae_l1=0.1, seed=seed) for seed in (0, 1, 0)])
    first = [parameters(made, index)["W_dec"] for index in range(3)]
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])


def test_first_loss_by_hand() -> None:
    """Scaled inputs, initial parameters, equations written out."""
    made = trainer([member("april", sae_l1=3.0, training_sparsity_warmup_steps=0, seed=4)])
    p = {name: t.double() for name, t in parameters(made, 0).items()}
    stats = statistics()
    x_BD = D**0.5 / stats.mean_norm * block(0).activations["blocks.0.hook_resid_post"][:32].double()
    f_BF = (x_BD @ p["W_enc"].t() + p["b_enc"]).relu()
    loss_B = (x_BD - f_BF @ p["W_dec"] - p["b_dec"]).square().sum(1) + 3.0 * (f_BF * p["W_dec"].norm(dim=1)).sum(1)
    made.consume(block(0, rows=256), nothing)
    assert first_record(made)["loss"] == pytest.approx(loss_B.mean().item(), rel=1e-12)
    assert first_record(made)["l0"] == pytest.approx((f_BF > 0).sum(1).double().mean().item(), rel=1e-12)


def test_sparsity_warmup_scales_the_coefficient() -> None:
    made = train([member("standard", sae_l1=0.5, training_sparsity_warmup_steps=10)], log_every=1)
    found = [record.values["coefficient"] for record in made.records[:12]]
    assert found == pytest.approx([0.5 * min(1, step / 10) for step in range(12)])
    assert made.members[0].coefficient == pytest.approx(0.5)


def test_sparsity_warmup_takes_a_target_down() -> None:
    """sparsity / V = (L0 / target - 1)^2, the target 16 times lower after 10 steps, or where it is to end."""
    keys = {"sae_l0": 2.0, "sae_threshold_init": 0.02, "training_sparsity_warmup_steps": 10}
    made = train([member("jumprelu_target_l0", **keys)], log_every=1)
    values = [record.values for record in made.records]
    first = values[0]["l0"]
    assert first > 4
    for step in range(15):
        target = max(2.0, first * 16 ** -min(1.0, step / 10))
        missed = made.trained.variance * (values[step]["l0"] / target - 1) ** 2
        assert values[step]["sparsity"] == pytest.approx(missed, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("kind", ["standard", "gated", "topk"])
def test_decoder_rows_stay_on_the_sphere(kind: str) -> None:
    made = train([member(kind, **({"sae_k": 3} if kind == "topk" else {"sae_l1": 0.3}))])
    norms_F = parameters(made, 0)["W_dec"].norm(dim=1)
    torch.testing.assert_close(norms_F, torch.ones(24, dtype=torch.float64), rtol=1e-14, atol=1e-14)


def test_april_decoder_is_free() -> None:
    made = train([member("april", sae_l1=0.3, training_lr=1e-2)])
    assert parameters(made, 0)["W_dec"].norm(dim=1).std() > 1e-3


def calls_to_resample(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    real, calls = trainer_module.resample, []

    def watched(bank: Any, adam: Any, index: int, dead_F: Any, batch: Any, *rest: Any) -> Any:
        revived = real(bank, adam, index, dead_F, batch, *rest)
        calls.append({"index": index, "dead": dead_F.clone(), "rows": len(batch.x_BD), "revived": len(revived)})
        return revived

    monkeypatch.setattr(trainer_module, "resample", watched)
    return calls


def test_resampling_happens_after_its_steps_and_lr_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_to_resample(monkeypatch)
    made = silence(trainer([member("gated", sae_l1=2.0, training_lr=1e-2)], log_every=1), 2)
    assert made.members[0].plan.schedule.resample_steps == (6, 12, 18, 24)
    done: list[tuple[int, int]] = []
    for index in range(7):
        made.consume(block(index), lambda: done.append((made.members[0].step, len(calls))))
    first_seen = {count: min(step for step, c in done if c == count) for _, count in done}
    assert first_seen == {0: 1, 1: 6, 2: 12, 3: 18, 4: 24}
    assert calls[0]["revived"] >= 2
    lr = {record.step: record.values["lr"] for record in made.records}
    assert lr[5] == pytest.approx(1e-2)
    assert lr[6] == pytest.approx(1e-3)
    assert lr[7] == pytest.approx(5.5e-3)  # warm-up is 2 steps of 50
    assert lr[8] == pytest.approx(1e-2)


def test_what_was_silent_for_the_window_is_resampled_and_counts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_to_resample(monkeypatch)
    made = trainer([member("standard", sae_l1=0.1)])
    window = made.members[0].plan.schedule.dead_window_steps
    assert window == 3
    made.bank.storage["b_enc"][[2, 5]] = -1e3
    made.consume(block(0, rows=6 * 32), nothing)
    assert calls[0]["dead"][[2, 5]].all()
    assert made.trained.silent_F[[2, 5]].tolist() == [0, 0]
    assert made.bank.storage["b_enc"][[2, 5]].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("trained", "stay"),
    [("encoder", {"W_dec"}), ("decoder", {"W_enc"}), ("none", {"W_enc", "b_enc", "W_dec", "b_dec"})],
)
def test_dead_latents_of_a_control_stay_as_they_began(trained: str, stay: set[str]) -> None:
    made = silence(trainer([member("standard", sae_l1=0.3, sae_trained=trained)]), 5)
    before = parameters(made, 0)
    after = parameters(finish(made), 0)
    assert {name for name in before if torch.equal(before[name], after[name])} == stay


def test_silence_counts_steps_since_the_last_firing() -> None:
    made = trainer([member("standard", sae_l1=0.0, sae_resample=False)])
    made.bank.storage["b_enc"][:] = 1e3
    made.bank.storage["b_enc"][7] = -1e3
    made.consume(block(0, rows=4 * 32), nothing)
    assert made.trained.silent_F.tolist() == [4 if i == 7 else 0 for i in range(24)]


def test_auxk_takes_up_latents_after_their_tokens() -> None:
    """dead_after_tokens = 96 is 3 steps of 32: from the fourth step on the auxiliary loss is there."""
    made = trainer([member("topk", sae_k=1)], log_every=1)
    made.bank.storage["b_enc"][:12] = -1e3
    made.consume(block(0, rows=6 * 32), nothing)
    auxiliary = [record.values["auxiliary"] for record in made.records]
    assert auxiliary[:3] == [0, 0, 0]
    assert min(auxiliary[3:]) > 0


def test_a_rest_smaller_than_a_batch_is_left_out() -> None:
    made = trainer([member("standard", sae_l1=0.1)])
    made.consume(block(0, rows=100), nothing)
    assert (made.members[0].step, made.members[0].tokens) == (3, 96)


def test_a_shorter_budget_ends_earlier() -> None:
    made = train([member("standard", sae_l1=0.1), member("standard", sae_l1=0.1, training_tokens=320.0)])
    assert [state.step for state in made.members] == [50, 10]
    last = [record for record in made.records if record.label == made.members[1].plan.label][-1]
    assert (last.step, last.tokens) == (9, 320)


@pytest.mark.parametrize("log_every", [1, 1_000])
@pytest.mark.parametrize("kind", ["standard", "gated"])
def test_a_diverging_member_does_not_stop_the_others(kind: str, log_every: int) -> None:
    """Its loss is not a number long before a resampling asks for losses, whenever it is looked at."""
    sound = member(kind, sae_l1=0.1)
    made = train([member(kind, sae_l1=0.1, training_lr=1e18), sound], log_every=log_every)
    assert made.members[0].failed is not None
    assert made.members[1].failed is None
    assert made.members[1].step == 50
    alone = train([sound])
    for name, t in parameters(alone, 0).items():
        torch.testing.assert_close(parameters(made, 1)[name], t, rtol=1e-9, atol=1e-9)


def test_without_memory_a_step_is_taken_by_fewer_members_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """From there on, and with the same results."""
    members = [member("gated", sae_l1=0.1 * (seed + 1), seed=seed) for seed in range(5)]
    whole, made = (trainer(members, log_every=100) for _ in range(2))
    real, sizes = Bank.gradients, list[int]()

    def gradients(self: Bank, batch: Batch, chunk: Chunk, *arguments: Any) -> Any:
        if self is made.bank:
            sizes.append(chunk.last - chunk.first)
            if sizes[-1] > 2 and made.members[0].step == 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, batch, chunk, *arguments)

    monkeypatch.setattr(Bank, "gradients", gradients)
    for one in (whole, made):
        one.consume(block(0), nothing)
    assert sizes == [5] * 4 + [2, 3] + [2, 2, 1] * 4
    for index in range(5):
        for name, theirs in parameters(whole, index).items():
            torch.testing.assert_close(parameters(made, index)[name], theirs, rtol=1e-9, atol=1e-11)


def test_other_errors_of_a_step_are_not_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked = trainer([member("standard", sae_l1=0.1)]), []

    def gradients(self: Bank, *arguments: Any) -> Any:
        asked.append(None)
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Bank, "gradients", gradients)
    with pytest.raises(RuntimeError, match="shapes differ"):
        made.consume(block(0), nothing)
    assert len(asked) == 1
    assert made.members[0].step == 0
