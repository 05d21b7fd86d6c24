"""Decoding of codes that are listed, and its gradients. Letters and words are those of `codes.py`."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sae_sweep.kernels.rows import CROWDED, RowSums
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
        return *_gradients(ctx, g_RD), None, None


class SparseErrors(torch.autograd.Function):
    """[B, M, D]: the same, more a bias of each member, less targets that have no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        W_dec: Tensor,
        b_dec_MD: Tensor,
        target_BMD: Tensor,
        codes: "SparseCodes",
        defers: bool,
    ) -> Tensor:
        from sae_sweep.kernels.cuda.gathering import errors

        ctx.save_for_backward(values, W_dec)
        ctx.codes, ctx.defers = codes, defers
        return errors(_rows(codes, W_dec), codes.latent_N, values, codes.row_offsets, b_dec_MD, target_BMD)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g_BMD,) = gradients
        g_b_dec = g_BMD.sum(0) if ctx.needs_input_grad[2] else None
        return *_gradients(ctx, g_BMD.flatten(0, 1)), g_b_dec, None, None, None


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


def _gradients(ctx: Any, g_RD: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Of values, and of the decoder where it is made."""
    values, W_dec = ctx.saved_tensors
    codes: SparseCodes = ctx.codes
    g_values, g_RD = None, g_RD if codes.rows_in is None else g_RD.to(codes.rows_in)
    if ctx.defers and ctx.needs_input_grad[0] and _crowded(codes, W_dec):
        return _both_by_latent(codes, values, W_dec, g_RD), None
    if ctx.needs_input_grad[0]:
        g_values = sampled_products(g_RD, W_dec, codes.latent_N, codes.row_offsets)
    return g_values, _decoder_gradient_or_late(codes, values, g_RD, ctx.defers) if ctx.needs_input_grad[1] else None


def _decoded(codes: "SparseCodes", values: Tensor, W_dec: Tensor) -> Tensor:
    """[R, D]"""
    return weighted_row_sums(_rows(codes, W_dec), codes.latent_N, values, codes.row_offsets)


def _rows(codes: "SparseCodes", W_dec: Tensor) -> Tensor:
    """Decoder rows as they are read. A copy in another format saves more time than it takes to make only where latents
    have many entries."""
    return W_dec if codes.rows_in is None or not _crowded(codes, W_dec) else W_dec.to(codes.rows_in)


def _crowded(codes: "SparseCodes", W_dec: Tensor) -> bool:
    """Whether latents have so many entries that what is done once for each latent costs little."""
    return len(codes.latent_N) >= CROWDED * len(W_dec)


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


def _both_by_latent(codes: "SparseCodes", values: Tensor, W_dec: Tensor, g_RD: Tensor) -> Tensor:
    """[N]: the gradient of the values; that of the decoder is made on the way, and goes to where those go that are
    not."""
    from sae_sweep.kernels.cuda.gathering import products_and_sums

    assert codes.late is not None
    by = codes.transpose
    ordered_N = values.index_select(0, by.order_N)
    g_values, g_W = products_and_sums(g_RD, W_dec, by.row_N, ordered_N, by.order_N, by.offsets)
    codes.late["W_dec"] = RowSums.made(g_W)
    return g_values


def _decoder_sums(codes: "SparseCodes", values: Tensor, g_RD: Tensor) -> RowSums:
    by = codes.transpose
    g_RD = g_RD if codes.rows_in is None else g_RD.to(codes.rows_in)
    return RowSums(g_RD, by.row_N, values.index_select(0, by.order_N), by.offsets)
