"""Lists of fixed length: a step whose list is too short changes nothing and is taken again; on a CPU that steps so."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from sae_sweep.kernels.entries import Room
from sae_sweep.saes import base
from sae_sweep.saes.encoders.base import Encoder
from sae_sweep.saes.encoders.dense import DenseEncoder
from sae_sweep.saes.encoders.halved import HalvedEncoder
from sae_sweep.saes.encoders.whole import WholeEncoder
from sae_sweep.training.step import rooms
from sae_sweep.training.step import trainer as trainer_module
from sae_sweep.training.step.trainer import BankTrainer
from tests.device.padded import padded
from tests.training.fabricate import block, member, parameters, trainer

KNOBS: dict[str, list[dict[str, Any]]] = {
    "gated": [{"sae_l1": 0.3}, {"sae_l0": 2.0, "sae_width": 40}],
    "topk": [{"sae_k": 2}, {"sae_k": 3, "sae_width": 40}],
    "batchtopk": [{"sae_k": 1}, {"sae_k": 4, "sae_width": 40}],
    "jumprelu_target_l0": [{"sae_l0": 2.0, "sae_bandwidth": 0.05}],
    "p_anneal": [{"sae_l1": 0.3}, {"sae_l1": 1.0, "sae_width": 40}],
}


def encoder(*given: Any) -> Encoder:
    *of, dense, room = given
    if dense:
        return DenseEncoder(*of)
    return (WholeEncoder if room.half is None else HalvedEncoder)(*of, room)


def train(made: BankTrainer, blocks: Sequence[int] = range(7)) -> BankTrainer:
    for index in blocks:
        made.consume(block(index), lambda: None)
    assert not made.running
    return made


HALVED = [(kind, half) for kind in KNOBS for half in (torch.float16, torch.bfloat16)]
SLOW = [pytest.param(kind, None, marks=pytest.mark.evidence) for kind in ("p_anneal", "batchtopk", "topk")]


@pytest.mark.parametrize(("kind", "half"), [("gated", None), ("jumprelu_target_l0", None), *SLOW, *HALVED])
def test_lost_steps_are_taken_again(kind: str, half: torch.dtype | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where products of 16 bits say what may be chosen too: what is chosen is the same."""
    members = [member(kind, training_lr=1e-2, seed=i, **keys) for i, keys in enumerate(KNOBS[kind])]
    expected = train(trainer(members, log_every=5))
    padded(monkeypatch)
    monkeypatch.setattr(base, "encoder_of", encoder)
    monkeypatch.setattr(rooms, "SLACK", 1.0)  # any more entries than at the last look are too many
    monkeypatch.setattr(rooms, "LEAST", 0)
    made, lost = trainer(members, log_every=5), []
    made._rooms.asked, made._half = False, half
    real = made._rooms.lost
    monkeypatch.setattr(made._rooms, "lost", lambda *some: lost.append(real(*some)) or lost[-1])
    train(made)
    assert any(any(steps) for steps in lost) or kind in ("topk", "batchtopk"), "these know how many there are"
    for index in range(len(members)):
        for name, theirs in parameters(expected, index).items():
            torch.testing.assert_close(parameters(made, index)[name], theirs, rtol=1e-7, atol=1e-7)
    assert torch.equal(made.trained.silent_F, expected.trained.silent_F)
    for own, other in zip(
        *(sorted(one.records, key=lambda r: (r.label, r.step)) for one in (made, expected)), strict=True
    ):
        assert (own.label, own.step, own.tokens) == (other.label, other.step, other.tokens)
        assert own.values == pytest.approx(other.values, rel=1e-6, abs=1e-8)


def test_stopped_between_two_steps_is_where_it_was_before_a_lost_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers and tensors agree then: what goes on from there loses nothing."""
    padded(monkeypatch)
    monkeypatch.setattr(base, "encoder_of", encoder)
    made = trainer([member("gated", sae_l1=0.3)], log_every=100)
    made._rooms.asked = False
    made.consume(block(0, rows=32 * 3), lambda: None)
    (one,) = made.members
    one.dense, before = False, {name: tensor.clone() for name, tensor in made.trained.tensors().items()}
    monkeypatch.setattr(made._rooms, "of", lambda members, *_: Room(1, (made._rooms._lost_M[members] > 0).any()))

    def told() -> None:
        if one.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.consume(block(1), told)
    assert (one.step, one.batches, one.dense) == (3, 0, True)
    for name, tensor in made.trained.tensors().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("kind", ["gated", "topk"])
def test_rows_in_16_bits_change_gradients_and_little_else(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are those of float32 to three percent all the way, at a rate with which few codes flip."""
    members = [member(kind, training_lr=1e-3, seed=i, **keys) for i, keys in enumerate(KNOBS[kind])]
    padded(monkeypatch)
    monkeypatch.setattr(base, "encoder_of", encoder)
    monkeypatch.setattr(trainer_module, "DENSE_ABOVE", {"cpu": 1.0})  # sparse after the first step
    made: list[BankTrainer] = []
    for precision in ("auto", "bf16"):
        one = trainer(members, log_every=5)
        one._rooms.asked, one._precision = False, precision
        made.append(train(one))
    exact, rounded = made
    first = exact.records[0].step
    for own, other in zip(exact.records, rounded.records, strict=True):
        assert (own.label, own.step) == (other.label, other.step)
        assert own.step > first or own.values == other.values, "the first step is dense"
        assert other.values["reconstruction"] == pytest.approx(own.values["reconstruction"], rel=0.03)
        assert other.values["l0"] == pytest.approx(own.values["l0"], rel=0.03, abs=0.05)
    for index in range(len(members)):
        own, other = parameters(exact, index), parameters(rounded, index)
        assert not torch.equal(own["W_dec"], other["W_dec"])
        torch.testing.assert_close(other["W_dec"], own["W_dec"], rtol=0, atol=0.03)
