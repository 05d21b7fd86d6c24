"""What test_triton.py runs in a process of its own, where Triton interprets its kernels on the CPU."""

import pickle
from importlib import import_module

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sae_sweep.kernels import selection, sparse
from sae_sweep.saes.encoders.whole import WholeEncoder
from sae_sweep.saes.layout import Layout

WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "_unique2",
    "lift_fresh",  # torch.tensor(number): a copy from the host
}  # fmt: skip
"""Operators that on CUDA make the host wait for the device."""


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
        with NoWaiting():
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
