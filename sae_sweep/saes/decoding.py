"""Decoding of codes that are listed, and its gradients. Letters and words are those of `codes.py`."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sae_sweep.kernels.rows import RowSums
from sae_sweep.kernels.sparse import row_sum_pairs, sampled_pairs, sampled_products, weighted_row_sums

if TYPE_CHECKING:
    from sae_sweep.saes.sparse_codes import SparseCodes


class SparseDecode(torch.autograd.Function):
    """[R, D]: values times their decoder rows, summed by row."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, codes: "SparseCodes", defers: bool) -> Tensor:
        ctx.save_for_backward(values, W_dec)
        ctx.codes, ctx.defers = codes, defers
        return _decoded(codes, values, W_dec)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g_RD,) = gradients
        values, W_dec = ctx.saved_tensors
        codes: SparseCodes = ctx.codes
        g_values = None
        if ctx.needs_input_grad[0]:
            g_values = sampled_products(g_RD, W_dec, codes.latent_N, codes.row_offsets)
        g_W = _decoder_gradient_or_late(codes, values, g_RD, ctx.defers) if ctx.needs_input_grad[1] else None
        return g_values, g_W, None, None


class SparseDecodeBoth(torch.autograd.Function):
    """Two sets of values; each decoder row is read once for the gradients of both."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        others: Tensor,
        W_dec: Tensor,
        codes: "SparseCodes",
        frozen: bool,
        defers: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(values, others, W_dec)
        ctx.codes, ctx.frozen, ctx.defers = codes, frozen, defers
        return row_sum_pairs(W_dec, codes.latent_N, values, others, codes.row_offsets)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        g_RD, g_other_RD = gradients
        values, others, W_dec = ctx.saved_tensors
        codes: SparseCodes = ctx.codes
        g_values, g_others = sampled_pairs(g_RD, g_other_RD, W_dec, codes.latent_N, codes.row_offsets)
        g_W = None
        if ctx.needs_input_grad[2]:
            g_W = _decoder_gradient_or_late(codes, values, g_RD, ctx.defers)
            if g_W is not None and not ctx.frozen:
                g_W += _decoder_gradient(codes, others, g_other_RD)
        return g_values, g_others, g_W, None, None, None


def _decoded(codes: "SparseCodes", values: Tensor, W_dec: Tensor) -> Tensor:
    """[R, D]"""
    return weighted_row_sums(W_dec, codes.latent_N, values, codes.row_offsets)


def _decoder_gradient(codes: "SparseCodes", values: Tensor, g_RD: Tensor) -> Tensor:
    """[F, D]"""
    sums = _decoder_sums(codes, values, g_RD)
    return weighted_row_sums(sums.table_KD, sums.index_N, sums.weight_N, sums.offsets)


def _decoder_gradient_or_late(codes: "SparseCodes", values: Tensor, g_RD: Tensor, defers: bool) -> Tensor | None:
    """The same; None where it is not made."""
    if not defers:
        return _decoder_gradient(codes, values, g_RD)
    assert codes.late is not None
    codes.late["W_dec"] = _decoder_sums(codes, values, g_RD)
    return None


def _decoder_sums(codes: "SparseCodes", values: Tensor, g_RD: Tensor) -> RowSums:
    by = codes.transpose
    return RowSums(g_RD, by.row_N, values.index_select(0, by.order_N), by.offsets)
