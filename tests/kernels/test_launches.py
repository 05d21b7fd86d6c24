"""What each kernel is said to load and store, against what it does where Triton interprets it."""

import torch

from sae_sweep.kernels.rows import AdamStep, RowSums
from scripts.bench.fake.launches import BYTES
from tests.kernels.conftest import Interpret

KERNELS = "sae_sweep.kernels.cuda"
MOVED = "tests.kernels.interpreted:moved"


def found(interpret: Interpret) -> list[tuple[str, int, int, int, int]]:
    torch.manual_seed(0)
    rows, width, latents = 12, 24, 9
    counts = torch.full((latents,), 5)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]).int()
    entries = int(offsets[-1])
    index_N, weight_N = torch.randint(rows, (entries,)).int(), torch.randn(entries)
    table, weights, scale = torch.randn(rows, width), torch.randn(latents, width), torch.ones(())
    lists = (index_N, weight_N, offsets)
    sums = RowSums(table, *lists)
    whole = RowSums(table, *lists, torch.randn(latents), torch.randn(1, width), torch.randn(latents, width))
    numbers, lost = AdamStep(1e-3, 0.9, 0.999, 1e-8, 0.03), torch.zeros((), dtype=torch.bool)
    moments = (torch.zeros_like(weights), torch.zeros_like(weights))
    z, floor_F = torch.randn(6, 300), torch.randn(300)
    above = (z > floor_F).sum(1)
    begins = torch.cat([torch.zeros(1, dtype=torch.int64), above.cumsum(0)]).int()
    made = [
        (f"{KERNELS}.sparse:weighted_row_sums", table, *lists),
        (f"{KERNELS}.sparse:sampled_products", weights, table, index_N, offsets),
        (f"{KERNELS}.sparse:row_sum_pairs", table, index_N, weight_N, weight_N, offsets),
        (f"{KERNELS}.sparse:sampled_pairs", weights, weights, table, index_N, offsets),
        (f"{KERNELS}.selection:row_top", z, 7),
        (f"{KERNELS}.selection:smallest_of_largest", z, 7),
        (f"{KERNELS}.listing:counts_above", z, floor_F),
        (f"{KERNELS}.listing:write_above", z, floor_F, begins, int(begins[-1])),
        (f"{KERNELS}.halving:half_rows", weights, 64, torch.float16),
        (f"{KERNELS}.updating:squared_norms", sums, weights, True),
        (f"{KERNELS}.updating:squared_norms", whole, weights, False),
        (f"{KERNELS}.updating:update", sums, weights, moments, numbers, scale, lost, True),
        (f"{KERNELS}.updating:update", whole, weights, moments, numbers, scale, lost, False),
    ]
    return [launch for name, *arguments in made for launch in interpret(MOVED, name, *arguments)]


def test_bytes_are_those_that_kernels_move(interpret: Interpret) -> None:
    launches = found(interpret)
    assert {name for name, *_ in launches} == set(BYTES)
    for name, read, written, loaded, stored in launches:
        if name == "_count_digits":  # which adds atomically, where there is something to add
            stored = written
        assert (read, written) == (loaded, stored), name
