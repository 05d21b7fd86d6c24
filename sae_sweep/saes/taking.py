"""Rows of a tensor by their places, with gradients that are added up in the order of the places. torch adds them
atomically on a GPU, in an order that is another one each time."""

from typing import Any

import torch
from torch import Tensor

from sae_sweep.kernels.sparse import sorted_offsets, weighted_row_sums


def taken(tensor_F: Tensor, index_K: Tensor, *, once: bool = False) -> Tensor:
    """[K, ...]: the numbers, or rows, at some places of [F, ...]; differentiable. `once`: no place is there twice."""
    if tensor_F.device.type == "cpu":
        return tensor_F.index_select(0, index_K)
    found: Tensor = (_Once if once else _Ordered).apply(tensor_F, index_K)
    return found


class _Once(torch.autograd.Function):
    """Rows of a tensor, none of them twice: there is nothing to add up."""

    @staticmethod
    def forward(ctx: Any, tensor_F: Tensor, index_K: Tensor) -> Tensor:
        ctx.save_for_backward(index_K)
        ctx.shape = tensor_F.shape
        return tensor_F.index_select(0, index_K)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g_K,) = gradients
        (index_K,) = ctx.saved_tensors
        return g_K.new_zeros(ctx.shape).index_copy_(0, index_K, g_K), None


class _Ordered(torch.autograd.Function):
    """Rows of a matrix, some of them more than once."""

    @staticmethod
    def forward(ctx: Any, rows_FD: Tensor, index_K: Tensor) -> Tensor:
        ctx.save_for_backward(index_K)
        ctx.rows = len(rows_FD)
        return rows_FD.index_select(0, index_K)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g_KD,) = gradients
        (index_K,) = ctx.saved_tensors
        ordered_K, order_K = torch.sort(index_K, stable=True)
        offsets = sorted_offsets(ordered_K, ctx.rows)
        return weighted_row_sums(g_KD, order_K, g_KD.new_ones(len(index_K)), offsets), None
