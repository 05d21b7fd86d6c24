"""What comes between steps on a fake GPU: resampling, turns, restoring, judging. It may wait, so often and no more."""

import pytest
import torch

from sae_sweep.evaluation.splice import PassLosses
from sae_sweep.evaluation.sums import SaeSums
from sae_sweep.training.devices.flat import host_buffer
from sae_sweep.training.devices.lanes import Lanes
from sae_sweep.training.devices.paged import Paged
from sae_sweep.training.devices.waves import Waves
from sae_sweep.training.step.trainer import BankTrainer
from scripts.bench.fake.device import DEVICE, fake_cuda
from scripts.bench.fake.trainers import block, member, trainer
from tests.device.kinds import BATCH, WIDTH, D, knobs
from tests.training.fabricate import SAE


def one(kind: str, **keys: object) -> BankTrainer:
    own = {"sae_width": WIDTH, "training_batch_size": BATCH, "training_tokens": BATCH * 64.0}
    return trainer([member(D, SAE[kind], kind, **own, **knobs(kind, l0=False), **keys)])


@pytest.mark.parametrize("kind", ["standard", "gated", "jumprelu", "p_anneal"])
def test_resampling(kind: str) -> None:
    with fake_cuda(entries=lambda mask: 3) as log:
        made = one(kind, sae_resample=True)
        first = made.members[0].schedule.resample_steps[0]
        made.members[0].step = first - 1
        log.clear()
        made.consume(block(D, BATCH), lambda: None)
        assert made.members[0].step == first
        assert log.waits.total() == 5
        assert not log.atomics


@pytest.mark.parametrize("kind", ["gated", "batchtopk"])
def test_turns(kind: str) -> None:
    """Members go out and come in without a wait; then the host waits once, for all that is on its way."""
    with fake_cuda() as log:
        paged = [Paged(one(kind)), Paged(one(kind))]
        turns = Waves([[each] for each in paged])
        assert all(not tensor.is_cuda for each in paged for tensor in each.trainer.trained.tensors().values())
        log.clear()
        with Lanes(turns.trainers) as lanes:
            turns.consume(lanes, block(D, 2 * BATCH), lambda: None)
        assert {"copy cpu to cuda", "copy cuda to cpu"}.isdisjoint(wait.partition(" at ")[0] for wait in log.waits)
        assert all(each.step == 2 for each in turns.members)


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ("", ["pinned_max_round_threshold_mb:16"]),
        ("expandable_segments:True", ["expandable_segments:True,pinned_max_round_threshold_mb:16"]),
        ("pinned_max_round_threshold_mb:1", []),
    ],
)
def test_pinned_memory_is_no_power_of_two(there: str, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And what the user says of the allocator stays said."""
    found: list[str] = []
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", found.append)
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", there)
    with fake_cuda():
        assert not host_buffer(3, DEVICE).is_cuda
    assert found == told


def test_a_member_is_restored_onto_the_device() -> None:
    with fake_cuda():
        made, other = one("gated"), one("gated")
        state = {
            name: t.cpu() if isinstance(t, torch.Tensor) else t for name, t in made.members[0].state_dict().items()
        }
        other.members[0].load_state_dict(state)
        assert all(tensor.is_cuda for tensor in other.trained.tensors().values())


@pytest.mark.parametrize("kind", ["standard", "gated", "topk", "jumprelu"])
def test_judging(kind: str) -> None:
    with fake_cuda(entries=lambda mask: max(1, mask.numel() // 20)) as log:
        sae = one(kind).members[0].inference()
        x_ND = torch.randn(40, D, device=DEVICE)
        tokens_N, counts_N = torch.zeros(40, dtype=torch.int64, device=DEVICE), torch.ones(40, device=DEVICE) > 0
        sums = SaeSums(sae, 4, DEVICE)
        log.clear()
        assert sums.add(x_ND, tokens_N, counts_N, tokens_N).is_cuda
        assert log.waits.total() == 9
        assert not log.atomics, "every sum has an order"
        sums.metrics()


def test_what_passes_lose_is_added_in_an_order() -> None:
    with fake_cuda() as log:
        losses = PassLosses(3, DEVICE)
        ce_N, sequence_N = torch.zeros(9, dtype=torch.float64, device=DEVICE), torch.zeros(9, device=DEVICE).long()
        log.clear()
        losses.add(sequence_N, ce_N, ce_N)
        assert not log.atomics
        assert not log.waits
