"""A member as one object: where it is and what it has learned, taken away and put back."""

import torch

from tests.training.fabricate import block, member, trainer


def test_a_state_dict_is_all_that_training_changes() -> None:
    """The member of another trainer that loads it goes on exactly as this one does."""
    plans = [member("gated", sae_l0=3.0), member("gated", sae_l1=0.1)]
    one, other = trainer(plans, torch.float32), trainer(plans, torch.float32)
    one.consume(block(0), lambda: None)
    one.members[1].judged_tokens = 64
    for own, theirs in zip(other.members, one.members, strict=True):
        own.load_state_dict(theirs.state_dict())
    for made in (one, other):
        made.consume(block(1), lambda: None)
    assert one.members[0].step == 16
    for own, theirs in zip(other.members, one.members, strict=True):
        assert own.numbers() == theirs.numbers()
        for name, tensor in theirs.tensors().items():
            assert torch.equal(own.tensors()[name].nan_to_num(), tensor.nan_to_num()), name


def test_a_members_tensors_are_views_of_its_bank() -> None:
    made = trainer([member("gated", sae_l1=0.1, seed=seed) for seed in (0, 1)])
    made.members[1].load_state_dict(made.members[0].state_dict() | {"step": 5, "failed": "given up"})
    assert torch.equal(made.bank.storage["W_enc"][24:], made.bank.storage["W_enc"][:24])
    assert (made.members[1].step, made.members[1].failed, made.members[0].step) == (5, "given up", 0)
