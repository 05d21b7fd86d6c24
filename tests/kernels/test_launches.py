"""What each kernel is said to load and store, against what it does where Triton interprets it."""

import torch

from sae_sweep.kernels.entries import Entries
from sae_sweep.kernels.halved import Added, Format
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
    columns_N = torch.cat([row.nonzero().squeeze(1) for row in z > floor_F]).int()
    listed = Entries(begins, columns_N, torch.randn(len(columns_N)))
    kept_N = torch.arange(len(columns_N)) % 3 > 0
    kept_begins = torch.cat([torch.zeros(1, dtype=torch.int64), kept_N.cumsum(0)])[begins.long()].int()
    member_F, order_N = torch.zeros(latents, dtype=torch.int32), torch.randperm(entries)
    added = Added(torch.randn(latents), torch.randn(1, width), member_F, torch.randn(latents), 0.5)
    made = [
        (f"{KERNELS}.sparse:weighted_row_sums", table, *lists),
        (f"{KERNELS}.sparse:sampled_products", weights, table, index_N, offsets),
        (f"{KERNELS}.sparse:row_sum_pairs", table, index_N, weight_N, weight_N, offsets),
        (f"{KERNELS}.sparse:sampled_pairs", weights, weights, table, index_N, offsets),
        (f"{KERNELS}.selection:smallest_of_largest", z, 7),
        (f"{KERNELS}.listing:counts_above", z, floor_F),
        (f"{KERNELS}.listing:write_above", z, floor_F, begins, int(begins[-1])),
        (f"{KERNELS}.listing:counts_kept", begins, kept_N),
        (f"{KERNELS}.listing:write_kept", *listed, kept_N, kept_begins, int(kept_N.sum()), 299),
        (f"{KERNELS}.selection:row_top", z, 7),
        (f"{KERNELS}.ranking:row_smallest", z.half(), 7),
        (f"{KERNELS}.ranking:keep_largest", listed, slice(0, 300), 7, torch.zeros_like(kept_N, dtype=torch.int8)),
        (f"{KERNELS}.halving:half_rows", weights, 64, Added(None, None, member_F), Format(torch.float16)),
        (f"{KERNELS}.halving:half_rows", weights, 64, added, Format(torch.bfloat16)),
        (f"{KERNELS}.halving:half_inputs", table.bfloat16(), 64, scale, Format(torch.float16)),
        (f"{KERNELS}.gathering:errors", table, *lists, torch.randn(3, width), torch.randn(3, 3, width)),
        (f"{KERNELS}.gathering:errors", table, *lists, torch.randn(3, width), torch.randn(3, 1, width)),
        (f"{KERNELS}.gathering:products_and_sums", table, weights, index_N, weight_N, order_N, offsets),
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
