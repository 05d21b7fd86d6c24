"""Codes: the entries of one step that can have a gradient, and the two differentiable ops on them.

A step has pre-activations [B, F] for B tokens and the F latents of all its members. An architecture picks the
*support*, the (token, latent) pairs through which any gradient flows, and then speaks of `values`, one per
entry of the support. Two layouts serve the same words:

* `SparseCodes` (`sparse_codes.py`): values are [N]. Everything costs N, not B x F.
* `DenseCodes` (`dense_codes.py`): values are [B, F], and 0 outside the support. For early training, when half of all
  latents fire and gathering them would cost more than multiplying by zero.

`encode` makes values of pre-activations (its backward: sparse-transposed times x); `decode` sums decoder rows
(its backward: a sampled dense-dense product for the values, sparse-transposed times error for the rows). What is
done to values between them is elementwise; where it does not keep zeros, or has a gradient at them, `inside` says
that only the support counts.

Letters: B tokens, M members, F latents, N entries, D model width. A row is a (token, member) pair.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sae_sweep.kernels.device import on_triton
from sae_sweep.kernels.entries import Room
from sae_sweep.kernels.rows import WIDEST, RowSums, Scaled
from sae_sweep.saes.layout import Layout


class Codes(ABC):
    """The support of one step. `values` are [N] (sparse), or [B, F] and 0 outside the support (dense)."""

    layout: Layout
    tokens: int
    late: dict[str, RowSums] | None = None
    """Where gradients of W_enc and W_dec go that are not made; None where they are."""
    scaled: Scaled | None = None
    """The inputs that values are encoded from, where they are numbers of 16 bits times another."""
    rows_in: torch.dtype | None = None
    """The format that rows of decoders, and of what comes back to them, are read in; None is their own."""

    def encode(
        self,
        values: Tensor,
        x_BD: Tensor,
        W_enc: Tensor,
        bias_F: Tensor | None,
        b_pre_MD: Tensor | None,
    ) -> Tensor:
        """The same values, pre-activations at the support, differentiable in x, W_enc, bias and b_pre."""
        defers = self.defers("W_enc", W_enc)
        encoded: Tensor = _Encode.apply(x_BD, W_enc, bias_F, b_pre_MD, values, self, defers)
        return encoded

    def defers(self, name: str, weight: Tensor) -> bool:
        """Whether the gradient of a weight, where it is a member's parameter itself, is not made but goes to `late`."""
        narrow = weight.shape[1] <= WIDEST
        return self.late is not None and name not in self.late and narrow and weight.is_leaf and on_triton(weight)

    @abstractmethod
    def relaid(self, layout: Layout) -> "Codes":
        """The same entries where the latents are those of other, neighbouring members. They are ordered by latent."""

    @abstractmethod
    def ranked(self, values: Tensor, ends: Sequence[Sequence[int]]) -> "tuple[Codes, Tensor]":
        """The same entries in parts by their rank, and their values. Of each token and member, the first part are the
        `ends[0]` largest values, the next those after them up to `ends[1]`, and so on to the last; to `decode` each
        part is a member. No member has more values above 0 of a token than its last end says."""

    def at_least(self, values: Tensor, smallest: Tensor, room: Room | None) -> "tuple[Codes, Tensor]":
        """The entries whose values are not below a number above 0, and these values, without gradient. With `room`
        lists fill it, and no device is waited for."""
        raise NotImplementedError

    @abstractmethod
    def inside(self, values: Tensor) -> Tensor:
        """The same values; outside the support 0, and without gradient."""

    def summable(self, g: Tensor) -> Tensor:
        """A gradient of values as sums over tokens or latents may take it: 0 outside the support, but where they leave
        that out by themselves."""
        return self.inside(g)

    @abstractmethod
    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        """[B, M, D]: for each token and member, its values times its decoder rows, summed."""

    def errors(self, values: Tensor, W_dec: Tensor, b_dec_MD: Tensor, target_BMD: Tensor) -> Tensor:
        """[B, M, D]: reconstructions less the target, [B, M or 1, D]."""
        return (self.decode(values, W_dec) + b_dec_MD).sub_(target_BMD)

    def decode_both(self, values: Tensor, others: Tensor, W_dec: Tensor, *, frozen: bool) -> tuple[Tensor, Tensor]:
        """`decode` of two sets of values. If `frozen`, the decoder has no gradient through the second."""
        return self.decode(values, W_dec), self.decode(others, W_dec.detach() if frozen else W_dec)

    @abstractmethod
    def dense(self, values: Tensor, latents: slice) -> Tensor:
        """[B, f]: the values of some latents, 0 where they are no entries; differentiable."""

    @abstractmethod
    def transposed_times(self, values: Tensor, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """[F, D] and [F]: for each latent its values times their tokens' inputs, and its values, summed; without
        gradient."""

    def row_sums(self, values: Tensor, x_BD: Tensor) -> tuple[RowSums, Tensor]:
        """The same, the former as sums that are not made."""
        raise NotImplementedError

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


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BD: Tensor,
        W_enc: Tensor,
        bias_F: Tensor | None,
        b_pre_MD: Tensor | None,
        values: Tensor,
        codes: Codes,
        defers: bool,
    ) -> Tensor:
        ctx.save_for_backward(x_BD, W_enc, b_pre_MD)
        ctx.codes, ctx.defers = codes, defers
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        x_BD, W_enc, b_pre_MD = ctx.saved_tensors
        codes: Codes = ctx.codes
        g = codes.summable(g)
        g_x = codes.times(g, W_enc) if ctx.needs_input_grad[0] else None
        late = codes.late if ctx.defers else None
        if late is not None and "W_enc" not in late:  # it has room for one product: of two the other's is made
            sums, g_bias = codes.row_sums(g, x_BD)
            late["W_enc"] = sums if b_pre_MD is None else replace(sums, factor_F=g_bias, subtracted_MD=b_pre_MD)
            g_W = None
        else:
            g_W, g_bias = codes.transposed_times(g, x_BD)
        g_b_pre = None
        if b_pre_MD is not None:  # -W_enc b_pre is added to W_enc x + bias: a term of rank one
            g_b_pre = torch.empty_like(b_pre_MD)
            for member, latents in enumerate(codes.layout.slices):
                if g_W is not None:
                    g_W[latents].addr_(g_bias[latents], b_pre_MD[member], alpha=-1)
                g_b_pre[member] = -(g_bias[latents] @ W_enc[latents])
        return g_x, g_W, g_bias if ctx.needs_input_grad[2] else None, g_b_pre, None, None, None
