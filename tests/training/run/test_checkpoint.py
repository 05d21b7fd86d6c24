"""Resumed == uninterrupted, bit for bit, for every architecture and at any batch of a block; and damaged files."""

from collections.abc import Iterator
from dataclasses import replace
from errno import ENOSPC
from itertools import cycle
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sae_sweep.folder.checkpoints import Checkpoint, Company
from sae_sweep.plan.members import Member
from sae_sweep.training.run.aside import Aside, Copied, pays
from sae_sweep.training.run.checkpointing import newest_sound, save
from sae_sweep.training.step.trainer import BankTrainer
from tests.equalities.test_group_alone import members as members_of
from tests.training.fabricate import KINDS, block, member, others_as_evidence, trainer

BLOCKS = 7
"""Of 8 batches each: 50 steps end in the last, a shorter budget in the fifth."""


class StoppedError(Exception):
    pass


def train(made: BankTrainer, first: int = 0, stop: tuple[int, int] = (-1, 0)) -> BankTrainer:
    """Train on all blocks from `first` on, from where the members are in it, or until a batch of a block was taken."""
    for index in range(first, BLOCKS):

        def after_step(index: int = index) -> None:
            if (index, max(state.batches for state in made.members if state.blocks == index + 1)) == stop:
                raise StoppedError

        try:
            made.consume(block(index), after_step)
        except StoppedError:
            return made
    return made


def saved(made: BankTrainer, company: Company, at: int = 0) -> Checkpoint:
    before = company.newest
    good = {m.identity: m.good_step for m in before.members} if before else {}
    records = [member.record(0, good.get(member.plan.identity)) for member in made.members]
    pairs = list(zip(made.members, records, strict=True))
    return save(company, at, "stamp", pairs, before.folder if before else None)


def restored(group: list[Member], company: Company, said: list[str], dtype: torch.dtype = torch.float32) -> Any:
    made = trainer(group, dtype)
    by_identity = {member.plan.identity: member for member in made.members}
    checkpoint = newest_sound(company, by_identity, said.append)
    for record in checkpoint.members if checkpoint is not None else ():
        by_identity[record.identity].restore(record, checkpoint.folder / record.file)
    return made, checkpoint


def members(kind: str) -> list[Member]:
    """Told apart by short names, which those of files are made of."""
    return [replace(member, identity=f"{index:016x}") for index, member in enumerate(members_of(kind))]


def tensors_of(thing: object, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor that can be reached from an object of ours."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from tensors_of(value, seen)
    elif isinstance(thing, list | tuple):
        for value in thing:
            yield from tensors_of(value, seen)
    elif type(thing).__module__.startswith("sae_sweep."):
        yield from tensors_of(vars(thing), seen)


@pytest.mark.parametrize(
    ("kind", "stop"),
    [
        *others_as_evidence(zip(KINDS, cycle([(2, 8), (4, 5)]))),
        *((kind, (0, 3)) for kind in ("gated", "topk", "p_anneal")),
    ],
)
def test_resumed_is_uninterrupted_bit_for_bit(kind: str, stop: tuple[int, int], tmp_path: Path) -> None:
    group, company = members(kind), Company(tmp_path / "company")
    whole = train(trainer(group, torch.float32))
    saved(train(trainer(group, torch.float32), stop=stop), company, stop[0])
    made, checkpoint = restored(group, company, said := [])
    assert (said, checkpoint.block, checkpoint.members[0].batches) == ([], *stop)
    train(made, stop[0])
    for index, state in enumerate(whole.members):
        again = made.members[index]
        assert (again.step, again.blocks, again.dense) == (state.step, state.blocks, state.dense)
        for name, tensor in whole.members[index].tensors().items():
            assert torch.equal(tensor.nan_to_num(), made.members[index].tensors()[name].nan_to_num()), name
        assert made.members[index].dead_fraction == whole.members[index].dead_fraction
        assert made.members[index].coefficient == whole.members[index].coefficient
    records = {(r.label, r.step): r.values for r in whole.records}
    assert all(records[r.label, r.step] == r.values for r in made.records)


@pytest.mark.parametrize("kind", others_as_evidence((kind,) for kind in KINDS))
def test_every_tensor_that_training_changes_is_saved(kind: str, tmp_path: Path) -> None:
    group, company = members(kind), Company(tmp_path / "company")
    trained = train(trainer(group, torch.float32), stop=(4, 5))
    saved(trained, company)
    made, _ = restored(group, company, [])
    found, wanted = list(tensors_of(made, set())), list(tensors_of(trained, set()))
    assert len(found) == len(wanted) > 10
    for own, expected in zip(found, wanted, strict=True):
        assert torch.equal(own.nan_to_num(), expected.nan_to_num())


@pytest.mark.parametrize("damage", ["truncated", "flipped byte", "flipped bit of state.json", "no state.json", "gone"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_taken(damage: str, tmp_path: Path) -> None:
    group, company = members("gated"), Company(tmp_path / "company")
    made = train(trainer(group, torch.float32), stop=(1, 1))
    saved(made, company, 1)
    expected = {name: t.clone() for name, t in made.members[0].tensors().items()}
    newest = saved(train(made, 1, stop=(3, 2)), company, 3).folder
    file = newest / ("state.json" if "state.json" in damage else f"{1:016x}.safetensors")
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 1
    match damage:
        case "truncated":
            file.write_bytes(file.read_bytes()[:-100])
        case "gone" | "no state.json":
            file.unlink()
        case _:
            file.write_bytes(contents)
    again, checkpoint = restored(group, company, said := [])
    assert (checkpoint.block, checkpoint.step) == (1, 9)
    assert len(said) == 1
    assert str(newest) in said[0]
    assert "\n" not in said[0]
    for name, tensor in expected.items():
        assert torch.equal(tensor.nan_to_num(), again.members[0].tensors()[name].nan_to_num())


def test_a_checkpoint_of_other_tensors_is_not_loaded(tmp_path: Path) -> None:
    company = Company(tmp_path / "company")
    one, other = member("gated", sae_l1=0.1), member("gated", sae_l1=0.1, sae_width=25)
    saved(trainer([one]), company)
    made, checkpoint = restored([replace(other, identity=one.identity)], company, said := [], torch.float64)
    assert checkpoint is None
    assert "(25, 8)" not in said[0]
    assert "(24, 8)" in said[0]
    assert made.members[0].step == 0


def test_the_last_good_state_outlives_a_state_that_is_not_finite(tmp_path: Path) -> None:
    group, company = members("gated"), Company(tmp_path / "company")
    made = train(trainer(group, torch.float32), stop=(0, 4))
    assert [m.good_step for m in saved(made, company).members] == [4, 4, 4, 4]
    good = {name: t.clone() for name, t in made.members[1].tensors().items()}
    for stop in ((1, 1), (1, 2), (1, 3)):
        train(made, stop[0], stop=stop)
        made.bank.member(made.bank.storage, 1)["b_dec"][3] = torch.nan
        checkpoint = saved(made, company)
    assert [m.good_step for m in checkpoint.members] == [checkpoint.step, 4, checkpoint.step, checkpoint.step]
    assert load_file(checkpoint.folder / checkpoint.members[1].file)["parameters.b_dec"].isnan().any()
    for name, tensor in load_file(checkpoint.folder / checkpoint.members[1].good).items():
        assert torch.equal(tensor.nan_to_num(), good[name].nan_to_num())


def test_a_member_that_never_was_finite_has_no_last_good_state(tmp_path: Path) -> None:
    made = trainer(members("gated"), torch.float32)
    made.bank.member(made.bank.storage, 0)["W_enc"][0, 0] = torch.inf
    checkpoint = saved(made, Company(tmp_path / "company"))
    assert not made.members[0].finite
    assert made.members[1].finite
    assert checkpoint.members[0].good_step is None


@pytest.mark.parametrize("kind", ["gated", "topk"])
def test_what_is_written_aside_is_how_members_were(kind: str, tmp_path: Path) -> None:
    """Training goes on to its end before the first byte is written; who resumes ends as if it had not been stopped."""
    group, company = members(kind), Company(tmp_path / "company")
    made, gate = train(trainer(group, torch.float32), stop=(2, 5)), Event()
    kept = [(Copied(member), member.record(0, None)) for member in made.members]
    expected = [{name: t.clone() for name, t in member.tensors().items()} for member in made.members]
    aside = Aside()
    aside.begin(lambda: save(company, 2, "stamp", kept, None) if gate.wait(60) else None)  # type: ignore[arg-type, return-value]
    train(made, 2)
    assert not company.folders()
    gate.set()
    assert aside.end() is not None
    assert aside.end() is None
    again, checkpoint = restored(group, company, [])
    assert (checkpoint.block, checkpoint.members[0].batches) == (2, 5)
    for own, before in zip(again.members, expected, strict=True):
        assert all(torch.equal(t.nan_to_num(), before[name].nan_to_num()) for name, t in own.tensors().items())
    train(again, 2)
    for own, whole in zip(again.members, made.members, strict=True):
        assert all(torch.equal(t.nan_to_num(), whole.tensors()[n].nan_to_num()) for n, t in own.tensors().items())


def test_a_disk_that_takes_nothing_is_told_where_the_checkpoint_is_asked_for() -> None:
    def write() -> Checkpoint:
        raise OSError(ENOSPC, "No space left on device", "state")

    aside = Aside()
    aside.begin(write)
    with pytest.raises(OSError, match="No space left"):
        aside.end()
    assert aside.end() is None


def test_on_a_cpu_nothing_is_written_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(members("standard")[:1], torch.float32)
    assert not pays(made.members)
    monkeypatch.setattr(type(made.members[0]), "on_gpu", True)
    assert pays(made.members)
    monkeypatch.setattr("sae_sweep.training.run.aside.host_free", lambda: 100.0)
    assert not pays(made.members), "no room for a copy"
