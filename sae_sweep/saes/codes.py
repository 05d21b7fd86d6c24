"""Codes: the entries of one step that can have a gradient, and the two differentiable ops on them.

A step has pre-activations [B, F] for B tokens and the F latents of all its members. An architecture picks the
*support*, the (token, latent) pairs through which any gradient flows, and then speaks of `values`, one per
entry of the support. Two layouts serve the same words:

* `SparseCodes`: values are [N]. Everything costs N, not B x F.
* `DenseCodes`: values are [B, F], and 0 outside the support. For early training, when half of all latents fire
  and gathering them would cost more than multiplying by zero.

`encode` makes values of pre-activations (its backward: sparse-transposed times x); `decode` sums decoder rows
(its backward: a sampled dense-dense product for the values, sparse-transposed times error for the rows). What is
done to values between them is elementwise; where it does not keep zeros, or has a gradient at them, `inside` says
that only the support counts.

Letters: B tokens, M members, F latents, N entries, D model width. A row is a (token, member) pair.
"""

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from sae_sweep.kernels.sparse import (
    bag_of_each,
    bag_sums,
    ordered_sums,
    positive_counts,
    sampled_pairs,
    sampled_products,
    sorted_offsets,
    transposed,
    weighted_row_sums,
)
from sae_sweep.saes.layout import Layout


class Codes(ABC):
    """The support of one step. `values` are [N] (sparse), or [B, F] and 0 outside the support (dense)."""

    layout: Layout
    tokens: int

    def encode(
        self,
        values: Tensor,
        x_BD: Tensor,
        W_enc: Tensor,
        bias_F: Tensor | None,
        b_pre_MD: Tensor | None,
        members: Layout | None = None,
    ) -> Tensor:
        """The same values, pre-activations at the support, differentiable in x, W_enc, bias and b_pre.

        `members` is the layout of b_pre's rows, where it is not that of the codes.
        """
        encoded: Tensor = _Encode.apply(x_BD, W_enc, bias_F, b_pre_MD, values, self, members or self.layout)
        return encoded

    @abstractmethod
    def inside(self, values: Tensor) -> Tensor:
        """The same values; outside the support 0, and without gradient."""

    @abstractmethod
    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        """[B, M, D]: for each token and member, its values times its decoder rows, summed."""

    def decode_both(self, values: Tensor, others: Tensor, W_dec: Tensor, *, frozen: bool) -> tuple[Tensor, Tensor]:
        """`decode` of two sets of values. If `frozen`, the decoder has no gradient through the second."""
        return self.decode(values, W_dec), self.decode(others, W_dec.detach() if frozen else W_dec)

    @abstractmethod
    def transposed_times(self, values: Tensor, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """[F, D] and [F]: for each latent its values times their tokens' inputs, and its values, summed; without
        gradient."""

    @abstractmethod
    def times(self, values: Tensor, rows_FD: Tensor) -> Tensor:
        """[B, D]: for each token, its values times their latents' rows, summed; without gradient."""

    @abstractmethod
    def at_latent(self, vector_F: Tensor) -> Tensor:
        """A per-latent vector, laid out to meet values."""

    @abstractmethod
    def member_sums(self, values: Tensor) -> Tensor:
        """[M]: each member's values, summed."""

    @abstractmethod
    def latent_sums(self, values: Tensor) -> Tensor:
        """[F]: each latent's values, summed."""

    @abstractmethod
    def member_minima(self, values: Tensor) -> Tensor:
        """[M], no gradient: each member's smallest value above 0; infinite without any."""

    @abstractmethod
    def support(self) -> Tensor:
        """[F] int64: on how many of the B tokens each latent is in the support."""

    @abstractmethod
    def fired(self, values: Tensor) -> Tensor:
        """[F] int64: on how many of the B tokens each latent's value is above 0."""


class SparseCodes(Codes):
    """Entries as a list, ordered by row: by token, then by member."""

    def __init__(self, token_offsets: Tensor, latent_N: Tensor, layout: Layout):
        """Where each token's entries begin [B + 1], and the latent of each."""
        self.layout, self.tokens = layout, len(token_offsets) - 1
        self.token_offsets, self.latent_N = token_offsets, latent_N

    @cached_property
    def token_N(self) -> Tensor:
        return bag_of_each(self.token_offsets, len(self.latent_N))

    @cached_property
    def row_N(self) -> Tensor:
        if self.layout.members == 1:
            return self.token_N
        members = self.layout.members
        return torch.add(self.layout.member_F.index_select(0, self.latent_N), self.token_N, alpha=members)

    @property
    def rows(self) -> int:
        return self.tokens * self.layout.members

    @cached_property
    def row_offsets(self) -> Tensor:
        return self.token_offsets if self.layout.members == 1 else sorted_offsets(self.row_N, self.rows)

    @cached_property
    def transpose(self) -> "Transpose":
        return Transpose(self)

    def inside(self, values: Tensor) -> Tensor:
        return values

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        out_RD = _SparseDecode.apply(values, W_dec, self)
        return out_RD.view(self.tokens, self.layout.members, -1)

    def decode_both(self, values: Tensor, others: Tensor, W_dec: Tensor, *, frozen: bool) -> tuple[Tensor, Tensor]:
        first_RD, second_RD = _SparseDecodeBoth.apply(values, others, W_dec, self, frozen)
        shape = (self.tokens, self.layout.members, -1)
        return first_RD.view(shape), second_RD.view(shape)

    def transposed_times(self, values: Tensor, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        by = self.transpose
        ordered_N, sums_F = ordered_sums(values, by.order_N, by.offsets)
        return weighted_row_sums(x_BD, by.token_N, ordered_N, by.offsets), sums_F

    def times(self, values: Tensor, rows_FD: Tensor) -> Tensor:
        return weighted_row_sums(rows_FD, self.latent_N, values, self.token_offsets)

    def at_latent(self, vector_F: Tensor) -> Tensor:
        return vector_F.index_select(0, self.latent_N)

    def member_sums(self, values: Tensor) -> Tensor:
        # By row first: a running fp32 sum over all entries would lose four digits.
        rows = _BagSums.apply(values, self.row_offsets, self.row_N)
        return rows.view(self.tokens, self.layout.members).sum(0)

    def latent_sums(self, values: Tensor) -> Tensor:
        sums_F: Tensor = _LatentSums.apply(values, self)
        return sums_F

    def member_minima(self, values: Tensor) -> Tensor:
        positive = torch.where(values > 0, values, torch.inf)
        if self.layout.members == 1:
            return torch.cat([positive, positive.new_full((1,), torch.inf)]).amin(0, keepdim=True)
        rows = values.new_full((self.rows,), torch.inf)
        rows.scatter_reduce_(0, self.row_N.long(), positive, "amin")
        return rows.view(self.tokens, self.layout.members).amin(0)

    def support(self) -> Tensor:
        return self.transpose.offsets.diff().long()

    def fired(self, values: Tensor) -> Tensor:
        return positive_counts(values.detach(), self.latent_N, self.layout.latents)


class Transpose:
    """Entries ordered by latent, and by token for each."""

    def __init__(self, codes: SparseCodes) -> None:
        found = transposed(codes.token_offsets, codes.latent_N, codes.layout.latents)
        self.offsets, self.order_N, self.token_N = found
        """[F + 1], where each latent begins; and [N], which entry is the n-th, and its token."""
        self._codes = codes

    @cached_property
    def row_N(self) -> Tensor:
        codes = self._codes
        return self.token_N if codes.layout.members == 1 else codes.row_N.index_select(0, self.order_N)


class DenseCodes(Codes):
    """Every pair is an entry; 1 or 0 at each says whether it is in the support."""

    def __init__(self, support_BF: Tensor, layout: Layout):
        """The support in the dtype of values: a number times a boolean is converted first, one at a time."""
        self.layout, self.tokens, self._support_BF = layout, support_BF.shape[0], support_BF

    def inside(self, values: Tensor) -> Tensor:
        return values * self._support_BF

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        if self.layout.members == 1:
            return (values @ W_dec)[:, None]
        return torch.stack([values[:, latents] @ W_dec[latents] for latents in self.layout.slices], dim=1)

    def transposed_times(self, values: Tensor, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        return values.T @ x_BD, self._column_sums(values)

    def times(self, values: Tensor, rows_FD: Tensor) -> Tensor:
        return values @ rows_FD

    def at_latent(self, vector_F: Tensor) -> Tensor:
        return vector_F

    def member_sums(self, values: Tensor) -> Tensor:
        return torch.stack([values[:, latents].sum() for latents in self.layout.slices])

    def latent_sums(self, values: Tensor) -> Tensor:
        return self._column_sums(values)

    def member_minima(self, values: Tensor) -> Tensor:
        positive = torch.where(values > 0, values, torch.inf)
        return torch.stack([positive[:, latents].amin() for latents in self.layout.slices])

    def support(self) -> Tensor:
        return self._support_F

    def fired(self, values: Tensor) -> Tensor:
        return self._counts((values.detach() > 0).to(values.dtype))

    @cached_property
    def _support_F(self) -> Tensor:
        return self._counts(self._support_BF)

    def _counts(self, ones_BF: Tensor) -> Tensor:
        """[F] int64: in fp32 whole numbers up to 2^24 are exact; booleans would be added up ten times as slowly."""
        return self._column_sums(ones_BF).round().long()

    @staticmethod
    def _column_sums(numbers_BF: Tensor) -> Tensor:
        """[F]: a product with ones; it takes half as long as `sum`."""
        return numbers_BF.new_ones(len(numbers_BF)) @ numbers_BF


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x_BD: Tensor,
        W_enc: Tensor,
        bias_F: Tensor | None,
        b_pre_MD: Tensor | None,
        values: Tensor,
        codes: Codes,
        members: Layout,
    ) -> Tensor:
        ctx.save_for_backward(x_BD, W_enc, b_pre_MD)  # type: ignore[arg-type]  # None is allowed
        ctx.codes, ctx.members = codes, members  # type: ignore[attr-defined]
        return values

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        x_BD, W_enc, b_pre_MD = ctx.saved_tensors
        codes: Codes = ctx.codes
        g = codes.inside(g)
        g_x = codes.times(g, W_enc) if ctx.needs_input_grad[0] else None
        g_W, g_bias = codes.transposed_times(g, x_BD)
        g_b_pre = None
        if b_pre_MD is not None:  # -W_enc b_pre is added to W_enc x + bias: a term of rank one
            g_b_pre = torch.empty_like(b_pre_MD)
            for member, latents in enumerate(ctx.members.slices):
                g_W[latents].addr_(g_bias[latents], b_pre_MD[member], alpha=-1)
                g_b_pre[member] = -(g_bias[latents] @ W_enc[latents])
        return g_x, g_W, g_bias if ctx.needs_input_grad[2] else None, g_b_pre, None, None, None


class _SparseDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, W_dec: Tensor, codes: SparseCodes) -> Tensor:
        ctx.save_for_backward(values, W_dec)
        ctx.codes = codes  # type: ignore[attr-defined]
        return _decoded(codes, values, W_dec)

    @staticmethod
    def backward(ctx, g_RD):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        values, W_dec = ctx.saved_tensors
        codes: SparseCodes = ctx.codes
        g_values = None
        if ctx.needs_input_grad[0]:
            g_values = sampled_products(g_RD, W_dec, codes.latent_N, codes.row_offsets)
        return g_values, _decoder_gradient(codes, values, g_RD) if ctx.needs_input_grad[1] else None, None


class _SparseDecodeBoth(torch.autograd.Function):
    """Two sets of values; each decoder row is read once for the gradients of both."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, values: Tensor, others: Tensor, W_dec: Tensor, codes: SparseCodes, frozen: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(values, others, W_dec)
        ctx.codes, ctx.frozen = codes, frozen  # type: ignore[attr-defined]
        return _decoded(codes, values, W_dec), _decoded(codes, others, W_dec)

    @staticmethod
    def backward(ctx, g_RD, g_other_RD):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        values, others, W_dec = ctx.saved_tensors
        codes: SparseCodes = ctx.codes
        g_values, g_others = sampled_pairs(g_RD, g_other_RD, W_dec, codes.latent_N, codes.row_offsets)
        g_W = None
        if ctx.needs_input_grad[2]:
            g_W = _decoder_gradient(codes, values, g_RD)
            if not ctx.frozen:
                g_W += _decoder_gradient(codes, others, g_other_RD)
        return g_values, g_others, g_W, None, None


def _decoded(codes: SparseCodes, values: Tensor, W_dec: Tensor) -> Tensor:
    """[R, D]"""
    return weighted_row_sums(W_dec, codes.latent_N, values, codes.row_offsets)


def _decoder_gradient(codes: SparseCodes, values: Tensor, g_RD: Tensor) -> Tensor:
    """[F, D]"""
    by = codes.transpose
    return weighted_row_sums(g_RD, by.row_N, values.index_select(0, by.order_N), by.offsets)


class _BagSums(torch.autograd.Function):
    """Sums of consecutive runs of entries; `bag_N` says in which run each entry is."""

    @staticmethod
    def forward(ctx: FunctionCtx, values_N: Tensor, offsets: Tensor, bag_N: Tensor) -> Tensor:
        ctx.bag_N = bag_N  # type: ignore[attr-defined]
        return bag_sums(values_N, offsets)

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        return g.index_select(0, ctx.bag_N), None, None


class _LatentSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, values_N: Tensor, codes: SparseCodes) -> Tensor:
        ctx.codes = codes  # type: ignore[attr-defined]
        return ordered_sums(values_N, codes.transpose.order_N, codes.transpose.offsets)[1]

    @staticmethod
    def backward(ctx, g_F):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        return ctx.codes.at_latent(g_F), None
