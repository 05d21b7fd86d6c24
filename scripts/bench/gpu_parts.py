"""The parts of `gpu.py`: each measures one thing on a device, and gives what goes into JSON."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sae_sweep.kernels import selection, sparse
from sae_sweep.kernels.entries import Room, above_within
from sae_sweep.training.step.trainer import BankTrainer
from scripts.bench.fake.costs import BATCH, L0, Case
from scripts.bench.fake.trainers import SITE, block, member, trainer
from scripts.bench.measure import seconds

Cases = tuple[Case, ...]
STEPS = 16
"""Timed together, between two looks."""
PRECISIONS = ("auto", "fp32", "tf32")
DENSITIES = (0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)


def made(case: Case, device: torch.device, l0: float = L0, **keys: Any) -> BankTrainer:
    """A trainer of a case, whose latents fire as often as asked for, on the sparse route."""
    own = {"sae_width": case.width, "training_batch_size": BATCH, "training_tokens": BATCH * 300_000.0}
    slow = {"training_lr": 1e-9}  # what fires stays
    plan = member(case.d, case.sae, case.name, **own, **dict(case.knobs), **slow, **keys)
    found = trainer([plan], log_every=10**6, device=device)
    _fire(found, l0)
    found.consume(block(case.d, BATCH, device=device), _nothing)  # the first step, which looks
    return found


def _fire(of: BankTrainer, l0: float) -> None:
    """Set the biases with which so many latents fire on a token."""
    weights = of.bank.storage
    names = [name for name in ("b_gate", "b_mag", "b_enc") if name in weights]
    x_BD = of.trained.inputs.scaled(
        block(weights["W_enc"].shape[1], 256, device=of.trained.device).activations[SITE.hook]
    )
    z_BF = (x_BD - weights["b_dec"]) @ weights["W_enc"].T
    cut = selection.smallest_of_largest(z_BF, max(1, int(l0 * len(x_BD))))
    for name in names:
        weights[name].copy_(-cut)


def _nothing() -> None:
    pass


def per_step(of: BankTrainer, case: Case, device: torch.device) -> float:
    """Seconds of a step: of some between two looks."""
    return min(_took(of, case, device, index, STEPS) for index in (1, 2, 3))


def _took(of: BankTrainer, case: Case, device: torch.device, index: int, steps: int) -> float:
    """Seconds of each of so many steps, on a block of its own."""
    whole = block(case.d, BATCH * steps, index, device)
    return seconds(lambda: of.consume(whole, _nothing), device) / steps


def kernels(device: torch.device, _: Cases) -> dict[str, float]:
    """The largest difference of each kernel from torch in float64, beside its result."""
    table, index = torch.randn(500, 300, device=device), torch.randint(500, (900,), device=device).int()
    weight, left = torch.randn(900, device=device), torch.randn(40, 300, device=device)
    offsets = torch.linspace(0, 900, 41, device=device).int()
    row_N = torch.repeat_interleave(torch.arange(40, device=device), offsets.diff().long())
    rows = weight.double()[:, None] * table.double()[index.long()]
    sums = torch.zeros(40, 300, dtype=torch.float64, device=device).index_add_(0, row_N, rows)
    products = (left.double()[row_N] * table.double()[index.long()]).sum(1)
    listed = above_within(table, table.new_zeros(()), Room(10**6, torch.tensor(False, device=device)))
    kth = selection.smallest_of_largest(table, 77)
    return {
        "weighted_row_sums": _off(sparse.weighted_row_sums(table, index, weight, offsets), sums),
        "sampled_products": _off(sparse.sampled_products(left, table, index, offsets), products),
        "above_within": float((listed.offsets[-1] - (table > 0).sum()).abs()),
        "smallest_of_largest": float((kth - table.flatten().topk(77).values[-1]).abs()),
    }


def _off(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).abs().max() / expected.abs().max())


def steps(device: torch.device, cases: Cases) -> dict[str, dict[str, Any]]:
    """Milliseconds of a step by precision, with the memory it holds at its fullest."""
    found: dict[str, dict[str, Any]] = {}
    for case in cases:
        for precision in PRECISIONS:
            of = made(case, device, training_precision=precision)
            with _peak(device) as held:
                took = per_step(of, case, device)
            found.setdefault(case.name, {})[precision] = {"ms": 1e3 * took, "floors": took / case.floor, **held}
            del of
    return found


@contextmanager
def _peak(device: torch.device) -> Iterator[dict[str, float]]:
    """Fills in what torch has allocated at most, in GB, where the device says that."""
    held: dict[str, float] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield held
    if device.type == "cuda":
        held["peak_gigabytes"] = torch.cuda.max_memory_allocated(device) / 1e9


def waits(device: torch.device, cases: Cases) -> dict[str, str]:
    """Whether steps between two looks wait for the device, by torch's own watch."""
    found = {}
    for case in cases:
        of = made(case, device)
        modes = iter(("error", "error", "default", "default"))  # the first step, and what comes after all, may wait
        of.consume(block(case.d, BATCH * 4, 1, device), lambda left=modes: _watch(next(left)))  # type: ignore[misc]
        found[case.name] = "none"
    return found


def _watch(mode: str) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode(mode)


def repeated(device: torch.device, cases: Cases) -> dict[str, list[str]]:
    """The tensors that differ in any bit after the same steps, taken twice."""
    found = {}
    for case in cases:
        ends = []
        for _ in range(2):
            torch.manual_seed(0)
            of = made(case, device)
            of.consume(block(case.d, BATCH * 4, 1, device), _nothing)
            ends.append({name: tensor.cpu() for name, tensor in of.trained.tensors().items()})
        found[case.name] = [
            name for name, one in ends[0].items() if not torch.equal(one.nan_to_num(), ends[1][name].nan_to_num())
        ]
    return found


def densities(device: torch.device, cases: Cases) -> dict[str, dict[str, float]]:
    """Milliseconds of a sparse step at each density, and of a dense one: where they cross is `DENSE_ABOVE`."""
    case = min(cases, key=lambda one: one.width)
    found = {}
    for density in DENSITIES:
        of = made(case, device, l0=density * case.width)
        took = {}
        for index, route in enumerate(("sparse", "dense"), 1):
            of.members[0].dense = route == "dense"
            took[route] = 1e3 * _took(of, case, device, index, 2)
        found[f"{density:g}"] = took
    return found


def paging(device: torch.device, _: Cases) -> dict[str, float]:
    """Gigabytes a second between the device and pinned memory."""
    size = 2**28 if device.type == "cuda" else 2**20
    host, there = torch.empty(size), torch.empty(size, device=device)
    host = host.pin_memory() if device.type == "cuda" else host
    gigabytes = size * 4 / 1e9
    into = seconds(lambda: there.copy_(host, non_blocking=True), device)
    return {"in": gigabytes / into, "out": gigabytes / seconds(lambda: host.copy_(there, non_blocking=True), device)}


PARTS: dict[str, Callable[[torch.device, Cases], Any]] = {
    part.__name__: part for part in (kernels, steps, waits, repeated, paging, densities)
}
"""In the order of what one wants to know first."""
