"""Members that take turns on the device == members that share it, bit for bit."""

import json
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sae_sweep.activations.block import Block
from sae_sweep.errors import ConfigError
from sae_sweep.plan.placement import Wave
from sae_sweep.saes.bank import Bank
from sae_sweep.training.devices.lanes import Lanes
from sae_sweep.training.devices.paged import Paged
from sae_sweep.training.devices.waves import Waves
from sae_sweep.training.run.opening import open_group
from sae_sweep.training.step import trainer as trainer_module
from sae_sweep.training.step.optimizer import Adam
from sae_sweep.training.step.trainer import BankTrainer
from tests.evaluation.groups import Planned, planned, small
from tests.training.fabricate import block, member, silence, trainer
from tests.training.run.test_checkpoint import tensors_of

SAES = {
    "standard": [{"sae_l1": 0.3}, {"sae_l0": 3.0, "seed": 1}, {"sae_l1": 0.1, "training_tokens": 640.0}],
    "gated": [{"sae_l1": 0.3, "sae_lookup": "learned"}, {"sae_l0": 3.0, "sae_lookup": "learned", "seed": 4}],
    "topk": [{"sae_k": 2}, {"sae_k": 3, "sae_width": 40, "training_tokens": 900.0}],
    "batchtopk": [{"sae_k": 2}, {"sae_k": 4, "seed": 2}],
    "jumprelu": [{"sae_l0_coefficient": 0.01, "sae_bandwidth": 0.05, "sae_threshold_init": 0.02}],
}
BLOCKS, STEPS = 8, 8
"""STEPS in each block."""


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members choose their route every few steps, so that they change it within the test."""
    monkeypatch.setattr(trainer_module, "ROUTE_EVERY", 4)


def trainers() -> list[BankTrainer]:
    """One for each member, as parts of wide members are."""
    made = [trainer([member(kind, **own)], torch.float32) for kind, members in SAES.items() for own in members]
    return [silence(one, 3) for one in made]


def consume(waves: Waves, block: Block, tick: Callable[[], object] = lambda: None) -> None:
    with Lanes(waves.trainers) as lanes:
        waves.consume(lanes, block, tick)


def trained(waves: Waves, blocks: int = BLOCKS) -> Waves:
    for index in range(blocks):
        consume(waves, block(index))
    return waves


def assert_equal(one: BankTrainer, other: BankTrainer) -> None:
    own, theirs = one.trained.tensors(), other.trained.tensors()
    assert own.keys() == theirs.keys()
    for name, tensor in own.items():
        assert torch.equal(tensor.nan_to_num(), theirs[name].nan_to_num()), name
    assert [member.numbers() for member in one.members] == [member.numbers() for member in other.members]
    assert [r for r in one.records if r.values["loss"] == r.values["loss"]] == other.records


def test_turns_change_no_bit() -> None:
    """Steering, AuxK, resampling, lookups and early ends on the way."""
    together = trained(Waves([trainers()]))
    apart = [Paged(one) for one in trainers()]
    turns = trained(Waves([apart[:3], apart[3:4], apart[4:]]))
    for one, other in zip(together.trainers, turns.trainers, strict=True):
        assert_equal(one, other)
    assert len({one.members[0].step for one in turns.trainers}) > 2, "some ended early"
    assert any(r.values["auxiliary"] > 0 for r in turns.trainers[5].records), "AuxK had dead latents"


def test_what_training_changes_is_all_that_is_paged() -> None:
    """Every tensor that a trainer holds and a step changes is among those that are taken to the host."""
    made = trainers()[1]
    named = {id(tensor) for tensor in made.trained.tensors().values()}
    held = list(tensors_of(made, set()))
    before = [tensor.clone() for tensor in held]
    made.consume(block(0), lambda: None)
    changed = {id(tensor) for tensor, old in zip(held, before, strict=True) if not torch.equal(tensor, old)}
    assert changed
    assert changed <= named


def test_members_that_wait_are_on_the_host_as_they_were_left() -> None:
    paged = Paged(trainers()[0])
    waiting = {name: tensor.data_ptr() for name, tensor in paged.trainer.trained.tensors().items()}
    waves = Waves([[paged], [Paged(trainers()[5])]])
    consume(waves, block(0))
    assert {name: tensor.data_ptr() for name, tensor in paged.trainer.trained.tensors().items()} == waiting
    with waves.here(paged.trainer.members):
        assert not waiting.items() & {n: t.data_ptr() for n, t in paged.trainer.trained.tensors().items()}.items()
    assert {name: tensor.data_ptr() for name, tensor in paged.trainer.trained.tensors().items()} == waiting


def test_whether_members_are_finite_is_known_before_they_go() -> None:
    paged = [Paged(one) for one in trainers()[:2]]
    waves = Waves([[one] for one in paged])
    consume(waves, block(0))
    for one in paged:
        for tensor in one.trainer.bank.storage.values():
            tensor.fill_(torch.nan)  # where it lies on the host, which nobody looks at
    assert all(member.finite for member in waves.members)
    consume(waves, block(1))
    assert not any(member.finite for member in waves.members)


def test_a_wave_without_memory_is_cut_and_does_its_block_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The third member finds no memory in the second block, also with what was given back, after some steps of all
    before it."""
    together = trained(Waves([trainers()]))
    made = trainers()
    real, calls = BankTrainer._step, [0]

    def step(self: BankTrainer, *arguments: Any) -> None:
        if self is made[2] and self.members[0].step == 11:
            calls[0] += 1
            if calls[0] <= 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
        real(self, *arguments)

    monkeypatch.setattr(BankTrainer, "_step", step)
    paged = [Paged(one) for one in made]
    waves = Waves([paged[:6], paged[6:]])
    settled: list[int] = []
    for index in range(BLOCKS):
        consume(waves, block(index), lambda: settled.append(len(waves.settled)))
    assert calls[0] == 3
    for one, other in zip(together.trainers, waves.trainers, strict=True):
        assert_equal(one, other)
    assert min(settled) == len(made) - 6, "what may be done again is not logged"
    (line,) = caplog.messages
    assert line.startswith("launcher.memory_gb: out of memory with 6 members on the device; from block 1 on")
    assert line.endswith("3 and 3")


def test_a_member_without_memory_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: BankTrainer, *arguments: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(BankTrainer, "_step", step)
    with pytest.raises(ConfigError, match=r"launcher\.memory_gb: standard.* ran out of memory alone"):
        consume(Waves([[Paged(trainers()[0])]]), block(0))


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: BankTrainer, *arguments: Any) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(BankTrainer, "_step", step)
    with pytest.raises(RuntimeError, match="shapes differ"):
        consume(Waves([[Paged(one) for one in trainers()]]), block(0))


def test_a_wave_that_stays_goes_to_the_host_where_memory_does_not_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of its third block, where it has long stayed on the device: nothing is lost or done twice."""
    together = trained(Waves([trainers()]))
    made = trainers()
    real, tried = Bank.gradients, [0]

    def gradients(self: Bank, *arguments: Any) -> Any:
        if self is made[2].bank and made[2].members[0].step == 2 * STEPS + 3 and tried[0] < 2:
            tried[0] += 1  # with what was given back too
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *arguments)

    monkeypatch.setattr(Bank, "gradients", gradients)
    waves = Waves([[Paged(one) for one in made]])
    for index in range(BLOCKS):
        consume(waves, block(index))
    assert tried[0] == 2
    for one, other in zip(together.trainers, waves.trainers, strict=True):
        assert_equal(one, other)
    assert caplog.messages[0].startswith(f"launcher.memory_gb: out of memory with {len(made)} members on the device;")


def test_a_step_that_was_half_done_is_no_state_to_go_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    waves = Waves([[Paged(one) for one in trainers()[:2]]])
    consume(waves, block(0))
    monkeypatch.setattr(Adam, "update", lambda *_: [refused])
    with pytest.raises(torch.OutOfMemoryError):
        consume(waves, block(1))


def test_an_update_without_memory_takes_no_member_out_of_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that has long stayed on the device, as of the gradients before; and a checkpoint falls due meanwhile."""
    together = trained(Waves([trainers()]))
    made = trainers()
    real, tried, due = Adam.update, [0], [0]

    def update(self: Adam, *arguments: Any) -> Any:
        if self is made[2].trained.adam and made[2].members[0].step == 2 * STEPS + 3 and tried[0] < 2:
            tried[0] += 1  # with what was given back too
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *arguments)

    def tick() -> None:
        if tried[0] == 2 and due[0] == 0:
            due[0] += 1
            raise KeyboardInterrupt

    monkeypatch.setattr(Adam, "update", update)
    waves = Waves([[Paged(one) for one in made]])
    for index in range(BLOCKS):
        with suppress(KeyboardInterrupt):
            consume(waves, block(index), tick)
        assert len(waves._waves) == (2 if index >= 2 else 1)
        consume(waves, block(index))
    assert (tried, due) == ([2], [1])
    for one, other in zip(together.trainers, waves.trainers, strict=True):
        assert_equal(one, other)


def test_a_wave_that_stays_makes_room_for_a_block() -> None:
    together = trained(Waves([trainers()]))
    waves = Waves([[Paged(one) for one in trainers()]])
    assert not Waves([trainers()]).leave(), "which were never meant to wait"
    for index in range(BLOCKS):
        assert waves.leave() == (index == 1), "it waits from then on"
        consume(waves, block(index))
    for one, other in zip(together.trainers, waves.trainers, strict=True):
        assert_equal(one, other)


MEMBERS = {
    "standard": ["sae=standard", "sae.l1=0.3", "sae.resample=true"],
    "steered": ["sae=gated", "sae.l0=6", "site.layer=1"],
    "early": ["sae=topk", "sae.k=4", "training.tokens=1500", "evaluation.positions=all"],
    "batch": ["sae=batchtopk", "sae.l0=5", "sae.width=64"],
    "table": ["sae=jumprelu", "sae.l0=6", "sae.lookup=learned"],
    "anneal": ["sae=p_anneal", "sae.l0=5", "training.batch_size=48"],
}


@pytest.fixture(scope="module")
def shared(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("waves")
    words = random.Random(0)
    documents = ["".join(words.choice("abcdefgh \n") for _ in range(90)) for _ in range(60)]
    text = folder / "text.jsonl"
    text.write_text("\n".join(json.dumps({"text": document}) for document in documents))
    return [
        *small(folder, llama_folder, text),
        *("training.tokens=4000", "training.batch_size=64", "training.lr=1e-2", "evaluation.every=2000"),
    ]


def files(made: Planned) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in MEMBERS:
        folder = made.member_folder(name)
        found[name] = {
            **{file: (folder / file).read_text() for file in ("metrics.json", "metrics.jsonl")},
            **load_file(folder / "sae_weights.safetensors"),
        }
    return found


def test_a_group_in_waves_writes_the_files_of_one_without(shared: list[str]) -> None:
    made = [planned([*shared, f"name={name}"], MEMBERS) for name in ("together", "turns")]
    waves = [Wave((part,), 0) for bank in made[1].group.banks for part in bank.chunks()]
    waves = [Wave((*waves[0].banks, *waves[1].banks), 0), *waves[2:]]
    for one, own in zip(made, ((), waves), strict=True):
        results = open_group(one.group, own).run(one.folder)
        assert {result.reason for result in results.values()} == {None}
    together, turns = (files(one) for one in made)
    for name in MEMBERS:
        assert together[name].keys() == turns[name].keys()
        for key, value in together[name].items():
            same = (
                torch.equal(value, turns[name][key]) if isinstance(value, torch.Tensor) else value == turns[name][key]
            )
            assert same, (name, key)


CHILD = """
import logging, resource, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from sae_sweep.kernels.entries import above
from sae_sweep.training.run.opening import open_group, passes
from sae_sweep.training.step.optimizer import remove_radial
from tests.evaluation.groups import planned
above(torch.ones(1, 8))  # what compiling them takes is no member's
remove_radial(torch.ones(1, 8), torch.ones(1, 8))
logging.basicConfig(level=logging.WARNING)
made = planned(sys.argv[2:], {str(n): [f"seed={n}"] for n in range(4)})
(one,) = passes(made.group)
assert len(one.waves) == 1, one.waves
run = open_group(one.group, one.waves)
room = int(sys.argv[1])
if room:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room,) * 2)
results = run.run(made.folder)
print("reasons", sorted({str(result.reason) for result in results.values()}))
"""


def run_child(folder: Path, room: int, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Four members in a process that can allocate so many bytes more than when its group was opened; 0 is no limit."""
    asked = [str(room), f"output_dir={folder}", *overrides]
    command = [sys.executable, "-c", textwrap.dedent(CHILD), *asked]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])


@pytest.mark.evidence
def test_a_process_that_gets_no_more_memory(tmp_path: Path) -> None:
    """Two members have room from some 240 MB on, four from 265: what a process has free from before differs."""
    overrides = (
        *("data=toy", "sae=standard", "sae.l1=1", "sae.width=8192", "training.batch_size=256", "training.tokens=1024"),
        *("data.block_rows=4", "evaluation.tokens=128", "tracking=none", "model.device=cpu", "launcher.memory_gb=100"),
    )
    done = run_child(tmp_path, 250_000_000, "name=small", *overrides)
    assert "reasons ['None']" in done.stdout, done.stderr[-2000:]
    assert "they take turns, 2 and 2" in done.stderr
    free = run_child(tmp_path, 0, "name=free", *overrides)
    assert "reasons ['None']" in free.stdout, free.stderr[-2000:]
    assert "take turns" not in free.stderr
    for folder in sorted((tmp_path / "free").glob("standard*")):
        theirs = load_file(tmp_path / "small" / folder.name / "sae_weights.safetensors")
        own = load_file(folder / "sae_weights.safetensors")
        assert all(torch.equal(own[name], theirs[name]) for name in own)
