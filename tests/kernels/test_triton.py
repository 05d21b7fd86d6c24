"""The Triton kernels, interpreted on the CPU, against torch's own operators, sorting, and exact sums."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_sweep.kernels import selection, sparse
from sae_sweep.kernels.device import on_triton
from sae_sweep.saes.layout import Layout
from scripts.bench.fake.launches import BYTES
from tests.kernels import interpreted
from tests.kernels.conftest import Interpret

SPARSE, SELECTION = "sae_sweep.kernels.cuda.sparse", "sae_sweep.kernels.cuda.selection"
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
# The interpreter cuts a sum off after bf16's eight digits, where a GPU rounds it.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2**-7}
RAGGED = [0, 5, 1, 40, 0, 0, 17, 16, 3, 0]
"""Sizes of bags: empty ones first, last and together; some longer than a program takes at once."""


def bags(sizes: list[int], rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Random entries: their rows [N], weights [N] and the offsets of bags of these sizes."""
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    entries = int(offsets[-1])
    return torch.randint(rows, (entries,)), torch.randn(entries).to(dtype), offsets


def matrix(rows: int, width: int, dtype: torch.dtype, layout: str) -> Tensor:
    """Random numbers whose rows lie end to end, apart, or along the other axis."""
    if layout == "apart":
        return torch.randn(rows, width + 5).to(dtype)[:, 3 : width + 3]
    return torch.randn(width, rows).to(dtype).T if layout == "columns" else torch.randn(rows, width).to(dtype)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width", "layout"), [(1, "whole"), (70, "apart"), (128, "whole"), (300, "columns")])
def test_weighted_row_sums(interpret: Interpret, dtype: torch.dtype, width: int, layout: str) -> None:
    table_KD = matrix(50, width, dtype, layout)
    index_N, weight_N, offsets = bags(RAGGED, 50, dtype)
    actual = interpret(f"{SPARSE}:weighted_row_sums", table_KD, index_N, weight_N, offsets)
    exact = sparse.weighted_row_sums(table_KD.double(), index_N, weight_N.double(), offsets)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), exact, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] / 10)
    assert not actual[[0, 4, 5, 9]].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width", "layout"), [(1, "whole"), (70, "apart"), (128, "whole"), (300, "columns")])
def test_sampled_products(interpret: Interpret, dtype: torch.dtype, width: int, layout: str) -> None:
    left_RD, right_FD = matrix(len(RAGGED), width, dtype, layout), matrix(50, width, dtype, layout)
    index_N, _, offsets = bags(RAGGED, 50, dtype)
    actual = interpret(f"{SPARSE}:sampled_products", left_RD, right_FD, index_N, offsets)
    exact = sparse.sampled_products(left_RD.double(), right_FD.double(), index_N, offsets)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), exact, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("width", "layout"), [(70, "apart"), (300, "columns")])
def test_pairs_are_each_by_itself(interpret: Interpret, dtype: torch.dtype, width: int, layout: str) -> None:
    table_KD = matrix(50, width, dtype, layout)
    index_N, weight_N, offsets = bags(RAGGED, 50, dtype)
    other_N, lefts = weight_N.flip(0), [matrix(len(RAGGED), width, dtype, each) for each in (layout, "whole")]
    sums = interpret(f"{SPARSE}:row_sum_pairs", table_KD, index_N, weight_N, other_N, offsets)
    for own, each_N in zip(sums, (weight_N, other_N), strict=True):
        alone = interpret(f"{SPARSE}:weighted_row_sums", table_KD, index_N, each_N, offsets)
        torch.testing.assert_close(own, alone, rtol=0, atol=0)
    products = interpret(f"{SPARSE}:sampled_pairs", *lefts, table_KD, index_N, offsets)
    for own, left_RD in zip(products, lefts, strict=True):
        alone = interpret(f"{SPARSE}:sampled_products", left_RD, table_KD, index_N, offsets)
        torch.testing.assert_close(own, alone, rtol=0, atol=0)


def test_no_bags_and_only_empty_bags(interpret: Interpret) -> None:
    table_KD = torch.randn(4, 7)
    for sizes in ([], [0], [0, 0, 0]):
        index_N, weight_N, offsets = bags(sizes, 4, torch.float32)
        left_RD = torch.randn(len(sizes), 7)
        sums = interpret(f"{SPARSE}:weighted_row_sums", table_KD, index_N, weight_N, offsets)
        assert torch.equal(sums, torch.zeros(len(sizes), 7))
        assert interpret(f"{SPARSE}:sampled_products", left_RD, table_KD, index_N, offsets).shape == (0,)


def test_what_lies_outside_a_bag_is_never_read_into_it(interpret: Interpret) -> None:
    """Neither entries after the last offset, nor what masked places of a block would hold."""
    table_KD = torch.randn(6, 5)
    table_KD[0] = torch.nan
    index_N, weight_N, offsets = bags([3, 2], 5, torch.float32)
    index_N, weight_N = (
        torch.cat([index_N + 1, torch.zeros(4, dtype=torch.long)]),
        torch.cat([weight_N, torch.full((4,), torch.nan)]),
    )
    sums = interpret(f"{SPARSE}:weighted_row_sums", table_KD, index_N, weight_N, offsets)
    torch.testing.assert_close(sums, sparse.weighted_row_sums(table_KD, index_N[:5], weight_N[:5], offsets))
    products = interpret(f"{SPARSE}:sampled_products", sums, table_KD, index_N, offsets)
    torch.testing.assert_close(products[:5], sparse.sampled_products(sums, table_KD, index_N[:5], offsets))
    assert torch.equal(products[5:], torch.zeros(4))


def test_half_precision_is_summed_in_single(interpret: Interpret) -> None:
    """A running bf16 sum of ones ends at 256."""
    ones_N, offsets = torch.ones(4096, dtype=torch.bfloat16), torch.tensor([0, 4096])
    index_N = torch.zeros(4096, dtype=torch.long)
    assert interpret(f"{SPARSE}:weighted_row_sums", ones_N[:1, None], index_N, ones_N, offsets) == 4096
    row_1D, one = ones_N[None], torch.tensor([0, 1])
    assert interpret(f"{SPARSE}:sampled_products", row_1D, row_1D, index_N[:1], one) == 4096


def test_rows_beyond_two_to_the_31_elements(interpret: Interpret) -> None:
    rows, width = 2**22 + 3, 1024  # 2^32 elements
    index_N = torch.tensor([rows - 1, 2**21 + 7, 5])
    weight_N, offsets = torch.tensor([1.0, 2.0, -1.0]).bfloat16(), torch.tensor([0, 1, 3])
    sums, products = interpret("tests.kernels.interpreted:far_apart", rows, width, index_N, weight_N, offsets)
    held = (index_N % 251).double()
    expected = torch.stack([held[0], 2 * held[1] - held[2]])
    assert torch.equal(sums.double(), expected[:, None].expand(2, width).bfloat16().double())
    assert torch.equal(products, (width * held).bfloat16())


KINDS = [(kind, dtype) for kind in ("normal", "ties", "one number") for dtype in (torch.float32, torch.bfloat16)]
KINDS += [("extremes", dtype) for dtype in (*DTYPES, torch.float16)]


def numbers(kind: str, rows: int, width: int, dtype: torch.dtype) -> Tensor:
    values = torch.randn(rows, width)
    if kind == "ties":
        values = values.round()
    elif kind == "one number":
        values = torch.full_like(values, -1.5)
    elif kind == "extremes":
        pool = torch.tensor([torch.inf, -torch.inf, 0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38])
        values = pool[torch.randint(len(pool), values.shape)]
    return values.to(dtype)


@pytest.mark.parametrize(("kind", "dtype"), KINDS)
def test_row_top(interpret: Interpret, kind: str, dtype: torch.dtype) -> None:
    """Columns are those of a stable sort, so that of equal numbers the first are taken; zeros are equal."""
    values_BF = numbers(kind, 4, 83, dtype)[:, 2:]
    for k in (1, 40, 81):  # 40 cuts among the zeros
        columns_BK, smallest_B = interpret(f"{SELECTION}:row_top", values_BF, k)
        expected = values_BF.sort(dim=1, descending=True, stable=True)
        assert torch.equal(columns_BK, expected.indices[:, :k].sort(dim=1).values)
        assert torch.equal(smallest_B, expected.values[:, k - 1])
        assert torch.equal(smallest_B, values_BF.topk(k, dim=1).values[:, -1])


@pytest.mark.parametrize("kind", ["normal", "ties"])
def test_row_top_of_rows_wider_than_a_block(interpret: Interpret, kind: str) -> None:
    values_BF = numbers(kind, 2, 5000, torch.float32)
    for k in (40, 4200):
        columns_BK, _ = interpret(f"{SELECTION}:row_top", values_BF, k)
        expected = values_BF.sort(dim=1, descending=True, stable=True).indices[:, :k]
        assert torch.equal(columns_BK, expected.sort(dim=1).values)


def test_row_top_of_no_rows_and_of_too_many(interpret: Interpret) -> None:
    columns_BK, smallest_B = interpret(f"{SELECTION}:row_top", torch.randn(0, 5), 3)
    assert columns_BK.shape == (0, 3)
    assert smallest_B.shape == (0,)
    for k in (0, 6):
        with pytest.raises(ValueError, match=f"k = {k} of 5 columns"):
            interpret(f"{SELECTION}:row_top", torch.randn(2, 5), k)


@pytest.mark.parametrize(("kind", "dtype"), KINDS)
def test_smallest_of_largest(interpret: Interpret, kind: str, dtype: torch.dtype) -> None:
    values = numbers(kind, 7, 30, dtype)
    cases = [(values, 1), (values, 70), (values, 210), (values[:, 3:20], 40), (values.T, 40), (values.flatten()[:1], 1)]
    for shaped, count in cases:
        actual = interpret(f"{SELECTION}:smallest_of_largest", shaped, count)
        assert actual.shape == ()
        assert actual == shaped.flatten().sort(descending=True).values[count - 1]


def test_smallest_of_largest_of_more_blocks_than_programs(interpret: Interpret) -> None:
    values = numbers("normal", 9, 100, torch.float32)
    for shaped in (values, values[:, 1:]):
        actual = interpret(f"{SELECTION}:smallest_of_largest", shaped, 400, BLOCK=32, PROGRAMS=5)
        assert actual == selection.smallest_of_largest(shaped, 400)


def test_nan_is_the_largest_of_all_as_in_torch(interpret: Interpret) -> None:
    values_BF = torch.tensor([[1.0, torch.nan, torch.inf, -torch.nan]])
    assert torch.equal(interpret(f"{SELECTION}:row_top", values_BF, 3)[0], torch.tensor([[1, 2, 3]]))
    assert interpret(f"{SELECTION}:smallest_of_largest", values_BF, 2).isnan()
    assert interpret(f"{SELECTION}:smallest_of_largest", values_BF, 3) == torch.inf


def test_a_step_on_the_kernels_is_a_step_on_torch(interpret: Interpret) -> None:
    """A bank of two members, through all that `SparseCodes` calls; and nothing in it waits for the device."""
    D, layout = 10, Layout((24, 40), torch.device("cpu"))
    assert layout.member_F.shape == (64,)  # made once, by operators that do wait
    shapes = ((6, D), (64, D), (64,), (64, D))
    tensors = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    actual = interpret("tests.kernels.interpreted:step", True, layout, 3, *tensors)
    for gradient, expected in zip(actual, interpreted.step(False, layout, 3, *tensors), strict=True):
        assert expected.any()
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "arguments"), [("torch:nonzero", [torch.ones(3)]), ("builtins:int", [torch.ones(())])], ids=str
)
def test_waiting_would_be_noticed(interpret: Interpret, name: str, arguments: list[Tensor]) -> None:
    with pytest.raises(AssertionError, match="waits for the device"):
        interpret(name, *arguments)


def stands_for(module: str, stub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever imports the module gets this instead, whether it was imported before or not."""
    monkeypatch.setitem(sys.modules, module, stub)
    package, _, name = module.rpartition(".")
    monkeypatch.setattr(import_module(package), name, stub, raising=False)


@pytest.mark.parametrize(
    ("public", "function", "arguments", "module"),
    [
        (sparse, "weighted_row_sums", ("table", "index", "weight", "offsets"), SPARSE),
        (sparse, "sampled_products", ("left", "right", "index", "offsets"), SPARSE),
        (selection, "smallest_of_largest", (torch.ones(3), 2), SELECTION),
    ],
)
def test_cuda_tensors_go_to_triton(
    public: Any, function: str, arguments: tuple[object, ...], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stands_for(module, SimpleNamespace(**{function: lambda *given: given}), monkeypatch)
    monkeypatch.setattr(public, "on_triton", lambda tensor: tensor is arguments[0])
    assert getattr(public, function)(*arguments) == arguments


def test_cuda_rows_go_to_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    stands_for(SELECTION, SimpleNamespace(row_top=lambda *given: (given, "the smallest")), monkeypatch)
    monkeypatch.setattr(selection, "on_triton", lambda tensor: tensor == "rows")
    assert selection.row_top("rows", 3) == ("rows", 3)  # type: ignore[arg-type, comparison-overlap]


def test_triton_serves_cuda_and_is_installed_here() -> None:
    assert on_triton(SimpleNamespace(is_cuda=True))  # type: ignore[arg-type]
    assert not on_triton(torch.ones(1))
    assert "TRITON_INTERPRET" not in os.environ


@pytest.mark.parametrize("capability", ["90", *(pytest.param(n, marks=pytest.mark.evidence) for n in ("80", "100"))])
def test_every_kernel_compiles(tmp_path: Path, capability: str) -> None:
    """To machine code for an H100, or others: the interpreter takes what the compiler would refuse."""
    command = [sys.executable, "-m", "tests.kernels.compiled", capability]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    root = Path(__file__).parents[2]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    kernels = [line.split() for line in result.stdout.splitlines()]
    assert {name for name, *_ in kernels} == set(BYTES)
    said = json.loads((root / "tests/evidence/bench/cuda_kernels.json").read_text())[f"sm_{capability}"]
    for name, *used in kernels:
        assert all(own <= most for own, most in zip(map(int, used), said[name].values(), strict=True)), name
