"""The fake device itself: its way back through a graph is torch's, and what should be noticed is."""

import pytest
import torch

from scripts.bench.fake.autograd import grad
from scripts.bench.fake.device import DEVICE, fake_cuda
from scripts.bench.fake.log import Log
from tests.saes.kinds import KINDS
from tests.saes.problems import problem


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dense", [False, True])
def test_the_way_back_is_torchs(kind: str, dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On real tensors, bit for bit but for the order in which gradients of one tensor are added."""
    _, expected = problem(kind, dead=True).gradients(dense)
    monkeypatch.setattr(torch.autograd, "grad", lambda *given, **keys: grad(*given, **keys))
    _, found = problem(kind, dead=True).gradients(dense)
    for own, theirs in zip(found, expected, strict=True):
        assert own.keys() == theirs.keys()
        for name, gradient in theirs.items():
            torch.testing.assert_close(own[name], gradient, rtol=1e-12, atol=1e-12)


def test_what_makes_the_host_wait_is_noticed() -> None:
    with fake_cuda(entries=lambda mask: 3) as log:
        x = torch.zeros(4, 5, device=DEVICE)
        float(x.sum())
        x[x > 0]
        x.nonzero()
        x.cpu()
        torch.tensor([1.0]).to(DEVICE)
        torch.tensor([1.0]).to(DEVICE, non_blocking=True)
        torch.repeat_interleave(torch.ones(3, dtype=torch.int64, device=DEVICE))
        assert sorted(wait.partition(" at ")[0] for wait in log.waits.elements()) == [
            "copy cpu to cuda", "copy cuda to cpu", "index by a mask", "item", "nonzero", "repeat_interleave",
        ]  # fmt: skip


def test_tensors_of_two_devices_do_not_meet() -> None:
    with fake_cuda(), pytest.raises(RuntimeError, match="on the same device"):
        torch.zeros(4, device=DEVICE) + torch.zeros(4)


def test_sums_in_no_order_are_noticed() -> None:
    with fake_cuda() as log:
        zeros, places = torch.zeros(4, device=DEVICE), torch.zeros(2, dtype=torch.int64, device=DEVICE)
        zeros.index_add_(0, places, torch.ones(2, device=DEVICE))
        zeros.long().index_add_(
            0, places, torch.ones(2, dtype=torch.int64, device=DEVICE)
        )  # whole numbers have one sum
        assert list(log.atomics.elements()) == ["index_add_ at elsewhere"]


def test_bytes_operations_and_what_is_live() -> None:
    def made(log: Log) -> None:
        a, b = torch.zeros(8, 4, device=DEVICE), torch.zeros(4, 2, dtype=torch.float32, device=DEVICE)
        log.clear()
        (a @ b).relu()

    with fake_cuda() as log:
        made(log)
        product, relu = log.ops
        assert (product.flops, product.kind, product.read, product.written) == (2 * 8 * 4 * 2, "float32", 160, 64)
        assert (relu.flops, relu.read, relu.written) == (0, 64, 64)
        assert log.peak == 160 + 64 + 64
        assert log.live == 0
