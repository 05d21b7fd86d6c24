"""What test_triton.py runs in a process of its own, where Triton interprets its kernels on the CPU."""

import pickle
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sae_sweep.kernels import selection, sparse
from sae_sweep.saes.encoders.halved import HalvedEncoder
from sae_sweep.saes.encoders.whole import WholeEncoder
from sae_sweep.saes.layout import Layout
from tests.saes.problems import Problem

WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "_unique2",
    "lift_fresh",  # torch.tensor(number): a copy from the host
}  # fmt: skip
"""Operators that on CUDA make the host wait for the device."""
FREE = ("moved", "bank_step")
"""Functions here that make their own problem, which takes some of them."""


class NoWaiting(TorchDispatchMode):
    """Refuses operators that would make the host wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        indices = args[1] if func.overloadpacket.__name__ in ("index", "index_put", "index_put_") else ()
        masked = any(index is not None and index.dtype == torch.bool for index in indices)
        sized = (kwargs or {}).get("output_size") is not None
        repeats = func.overloadpacket.__name__ == "repeat_interleave" and not sized  # of a length it must find out
        if masked or repeats or func.overloadpacket.__name__ in WAITS:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def call(request: bytes) -> bytes:
    """Call a function by name, (module:function, arguments, constants to set), with pickled tensors in and out."""
    name, arguments, constants = pickle.loads(request)
    module, function = name.split(":")
    owner = import_module(module)
    before = {constant: getattr(owner, constant) for constant in constants}
    vars(owner).update(constants)
    try:
        with nullcontext() if function in FREE else NoWaiting():
            result = getattr(owner, function)(*arguments)
    finally:
        vars(owner).update(before)
    return pickle.dumps(result)


def far_apart(rows: int, width: int, index_N: Tensor, weight_N: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Both sparse kernels on a bf16 table of which only rows in `index_N` are ever touched, so that it takes no memory.

    Row r holds r % 251 everywhere. The dense side of the products is 1 everywhere.
    """
    from triton.runtime.interpreter import GridExecutor

    from sae_sweep.kernels.cuda import sparse as triton_sparse

    table = torch.empty(rows, width, dtype=torch.bfloat16)
    table[index_N] = (index_N % 251).bfloat16()[:, None].expand(-1, width)
    ones = torch.ones(len(offsets) - 1, width, dtype=torch.bfloat16)
    # It would copy each argument onto itself, which makes all pages of the table real.
    copy_back, GridExecutor._restore_args_dev = GridExecutor._restore_args_dev, lambda *arguments: None
    try:
        sums = triton_sparse.weighted_row_sums(table, index_N, weight_N, offsets)
        products = triton_sparse.sampled_products(ones, table, index_N, offsets)
    finally:
        GridExecutor._restore_args_dev = copy_back
    return sums, products


def step(as_on_cuda: bool, layout: Layout, k: int, x_BD: Tensor, *parameters: Tensor) -> list[Tensor]:
    """Gradients of a TopK bank's squared error with respect to x, W_enc, b_enc and W_dec."""
    previous = sparse.on_triton
    sparse.on_triton = selection.on_triton = lambda tensor: as_on_cuda
    try:
        x_BD, W_enc, b_enc, W_dec = leaves = [tensor.clone().requires_grad_() for tensor in (x_BD, *parameters)]
        codes, z = WholeEncoder(x_BD, W_enc, b_enc, None, layout).largest_of_rows([k] * layout.members)
        f = torch.relu(z)
        error_BMD = x_BD.detach()[:, None] - codes.decode(f, W_dec)
        return list(torch.autograd.grad(error_BMD.square().sum(), leaves))
    finally:
        sparse.on_triton = selection.on_triton = previous


def moved(name: str, *arguments: object) -> list[tuple[str, int, int, int, int]]:
    """Of each launch of a function: the kernel, bytes that it was said to load and to store, and those that it did."""
    from triton.runtime import interpreter

    from scripts.bench.fake.device import kernel_modules
    from scripts.bench.fake.launches import BYTES

    counted = {"load": 0, "store": 0}
    builder = interpreter.InterpreterBuilder
    real = {each: getattr(builder, f"create_{each}") for each in ("masked_load", "masked_store")}

    def masked_load(self, ptrs, mask, *rest):
        counted["load"] += int(mask.data.sum()) * ptrs.get_element_ty().primitive_bitwidth // 8
        return real["masked_load"](self, ptrs, mask, *rest)

    def masked_store(self, ptrs, value, mask, *rest):
        counted["store"] += int(mask.data.sum()) * ptrs.get_element_ty().primitive_bitwidth // 8
        return real["masked_store"](self, ptrs, value, mask, *rest)

    found = []

    class Watched:
        def __init__(self, kernel, name):
            self.kernel, self.name = kernel, name

        def __getitem__(self, grid):
            def launch(*given, **constants):
                counted.update(load=0, store=0)
                said = BYTES[self.name](grid, given, constants, lambda room: room)
                self.kernel[grid](*given, **constants)
                found.append((self.name, said.read + said.cached, said.written, counted["load"], counted["store"]))

            return launch

    kernels = [(one, each) for one in kernel_modules() for each in vars(one) if each in BYTES]
    before = [(one, each, getattr(one, each)) for one, each in kernels]
    builder.create_masked_load, builder.create_masked_store = masked_load, masked_store
    for one, each, kernel in before:
        setattr(one, each, Watched(kernel, each))
    try:
        module, function = name.split(":")
        getattr(import_module(module), function)(*arguments)
    finally:
        for each, method in real.items():
            setattr(builder, f"create_{each}", method)
        for one, each, kernel in before:
            setattr(one, each, kernel)
    return found


def updated(sums, rows_FD, first, second, numbers, scale, lost, unit):
    """Rows and moments after an update."""
    from sae_sweep.kernels.cuda import updating

    updating.update(sums, rows_FD, (first, second), numbers, scale, lost, unit)
    return rows_FD, first, second


def kept_largest(entries, parts, counts) -> Tensor:
    """Where the largest of lists are, as a GPU finds them."""
    from sae_sweep.kernels.cuda import ranking

    kept_N = torch.zeros(len(entries.value_N), dtype=torch.int8)
    for columns, count in zip(parts, counts, strict=True):
        ranking.keep_largest(entries, columns, count, kept_N)
    return kept_N.view(torch.bool)


SCALE = 0.7


def in_16_bits(made: Problem) -> Problem:
    """The same in float32, of inputs that are numbers of 16 bits times SCALE."""
    parameters = [{name: tensor.float() for name, tensor in own.items()} for own in made.parameters]
    return replace(made, x_BD=SCALE * (made.x_BD / SCALE).bfloat16().float(), parameters=parameters)


def bank_step(
    kind: str, density: str, room: int, dead: bool, halved: bool = False, rows_in: torch.dtype | None = None
) -> tuple[list[dict[str, Tensor]], Tensor, Tensor, bool]:
    """Gradients of a bank's members as a GPU makes them: lists in a room, rows that are summed late, nothing waited
    for; products of 16 bits that choose, if `halved`. And which latents fired, which had a gradient, and whether the
    room was too small."""
    from unittest.mock import patch

    from sae_sweep.kernels import entries
    from sae_sweep.kernels import halved as kernels_halved
    from sae_sweep.kernels.entries import Room
    from sae_sweep.kernels.rows import RowSums, Scaled
    from sae_sweep.saes import base, codes, sparse_codes
    from sae_sweep.saes.bank import Batch, Chunk
    from tests.saes.problems import CLOCKS, VARIANCE, problem

    made = problem(kind, density, dead=dead)
    batch = Batch(made.x_BD, made.token_B)
    if halved:
        made = in_16_bits(made)
        raw_BD = (made.x_BD / SCALE).bfloat16()
        batch = Batch(made.x_BD, made.token_B, scaled=Scaled(made.x_BD, raw_BD, SCALE))
    bank, members = made.bank(), len(made.configs)
    asked = Room(room, torch.tensor(False), torch.float16 if halved else None)
    asked.rows_in = rows_in
    chunk = Chunk(0, members, False, asked, tuple(int(each.sum()) + 2 * dead for each in made.dead))
    owners = (sparse, selection, entries, codes, sparse_codes, kernels_halved)
    patches = [patch.object(owner, "on_triton", lambda tensor: True) for owner in owners]
    patches.append(patch.object(base, "encoder_of", _halved if halved else _whole))
    for one in patches:
        one.start()
    try:
        given = (batch, chunk, made.coefficient_M, torch.cat(made.dead), VARIANCE, CLOCKS[:members])
        losses, found = bank.gradients(*given)
    finally:
        for one in patches:
            one.stop()
    dense = [{name: g if isinstance(g, Tensor) else _made(g) for name, g in own.items()} for own in found]
    late = {name for own in found for name, g in own.items() if isinstance(g, RowSums)}
    assert "W_enc" in late
    return dense, losses.fired_F, losses.support_F, bool(asked.lost)


def _whole(x_BD, W_enc, bias_F, b_pre_MD, layout, dense, room):
    return WholeEncoder(x_BD, W_enc, bias_F, b_pre_MD, layout, room)


def _halved(x_BD, W_enc, bias_F, b_pre_MD, layout, dense, room):
    return HalvedEncoder(x_BD, W_enc, bias_F, b_pre_MD, layout, room)


def _made(sums) -> Tensor:
    """A gradient that is summed late."""
    latents = len(sums.offsets) - 1
    gradient = sums.weight_N.new_zeros(latents, sums.table_KD.shape[1])
    for latent in range(latents):
        own = slice(int(sums.offsets[latent]), int(sums.offsets[latent + 1]))
        gradient[latent] = sums.weight_N[own] @ sums.table_KD[sums.index_N[own].long()].to(sums.weight_N.dtype)
    if sums.subtracted_MD is not None:
        gradient -= sums.factor_F[:, None] * sums.subtracted_MD
    return gradient if sums.added_FD is None else gradient + sums.added_FD
