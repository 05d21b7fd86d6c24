"""Codes as a list of entries: everything costs as many as there are. Letters and words are those of `codes.py`."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from sae_sweep.kernels.device import moved, on_triton
from sae_sweep.kernels.entries import Entries, Room, kept, kept_within
from sae_sweep.kernels.rows import RowSums
from sae_sweep.kernels.sparse import (
    bag_of_each,
    bag_sums,
    ordered_sums,
    positive_counts,
    sorted_offsets,
    transposed,
    weighted_row_sums,
)
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.decoding import SparseDecode, SparseDecodeBoth, SparseErrors
from sae_sweep.saes.layout import Layout
from sae_sweep.saes.taking import taken


class SparseCodes(Codes):
    """Entries as a list, ordered by row: by token, then by member."""

    def __init__(
        self,
        token_offsets: Tensor,
        latent_N: Tensor,
        layout: Layout,
        padded: bool = False,
        late: dict[str, RowSums] | None = None,
    ):
        """Where each token's entries begin [B + 1], and the latent of each. Where lists are `padded`, what comes after
        the last offset is of the last latent, and outside the support."""
        self.layout, self.tokens = layout, len(token_offsets) - 1
        self.token_offsets, self.latent_N, self._padded, self.late = token_offsets, latent_N, padded, late

    @cached_property
    def token_N(self) -> Tensor:
        return bag_of_each(self.token_offsets, len(self.latent_N), self._padded)

    @property
    def rows_per_token(self) -> int:
        return self.layout.members

    @cached_property
    def row_N(self) -> Tensor:
        if self.rows_per_token == 1:
            return self.token_N
        own_N = self.layout.member_F.index_select(0, self.latent_N)
        return torch.add(own_N, self.token_N, alpha=self.rows_per_token)

    @property
    def rows(self) -> int:
        return self.tokens * self.rows_per_token

    @cached_property
    def row_offsets(self) -> Tensor:
        return self.token_offsets if self.rows_per_token == 1 else self._within(sorted_offsets(self.row_N, self.rows))

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """Entries ordered by latent, and by token for each: where each latent begins [F + 1], which entry is the n-th
        [N], and its token [N]."""
        offsets, order_N, token_N = transposed(self.token_offsets, self.latent_N, self.layout.latents)
        return self._within(offsets), order_N, token_N

    @cached_property
    def transpose(self) -> "Transpose":
        return Transpose(self)

    def relaid(self, layout: Layout) -> "SparseCodes":
        return RelaidCodes(self, layout)

    def ranked(self, values: Tensor, ends: Sequence[Sequence[int]]) -> tuple[Codes, Tensor]:
        most = max(own[-1] for own in ends)
        if self._padded or values.device.type != "cpu":
            return self._ranked_by_sorting(values, ends, most)
        place_N = torch.arange(len(values), device=values.device) - self.row_offsets.index_select(0, self.row_N)
        padded_RK = values.new_full((self.rows, most), -torch.inf)
        padded_RK[self.row_N.long(), place_N.long()] = values.detach()
        order_RK = padded_RK.argsort(dim=1, descending=True, stable=True)
        there_RK = torch.arange(most, device=values.device) < self.row_offsets.diff()[:, None]
        order_N = (order_RK + self.row_offsets[:-1, None])[there_RK]
        part_MK = moved(_parts(ends, most).to(self.row_N.dtype), values.device)
        part_N = part_MK.repeat(self.tokens, 1)[there_RK]
        return RankedCodes(self, order_N, part_N, sum(map(len, ends))), values.index_select(0, order_N)

    def _ranked_by_sorting(self, values: Tensor, ends: Sequence[Sequence[int]], most: int) -> tuple[Codes, Tensor]:
        """The same without asking how many entries there are: padding comes last, in the last part."""
        found = torch.where(self._real_N, values.detach(), -torch.inf)
        order_N = found.argsort(descending=True, stable=True)
        order_N = order_N.index_select(0, self.row_N.index_select(0, order_N).argsort(stable=True))
        places_N = torch.arange(len(values), device=values.device)
        rank_N = places_N - self.row_offsets.index_select(0, self.row_N)  # rows have the places that they had
        part_MK = moved(_parts(ends, most).to(self.row_N.dtype), values.device)
        member_N = self.row_N % self.layout.members
        part_N = part_MK.flatten().index_select(0, member_N * most + rank_N.clamp(max=most - 1))
        return RankedCodes(self, order_N, part_N, sum(map(len, ends))), taken(values, order_N, once=True)

    def at_least(self, values: Tensor, smallest: Tensor, room: Room | None) -> tuple[Codes, Tensor]:
        entries = Entries(self.token_offsets, self.latent_N, values)
        if room is None:
            found = kept(entries, smallest.expand(self.layout.latents).contiguous(), inclusive=True)
        else:
            found = kept_within(entries, (values >= smallest) & self._real_N, room.wider(1), self.layout.latents - 1)
        return SparseCodes(found.offsets, found.column_N, self.layout, room is not None, self.late), found.value_N

    def _within(self, offsets: Tensor) -> Tensor:
        """Offsets of ordered entries, without those that are padding: these come last in any order."""
        return torch.minimum(offsets, self.token_offsets[-1]) if self._padded else offsets

    @cached_property
    def _real_N(self) -> Tensor:
        return torch.arange(len(self.latent_N), device=self.latent_N.device) < self.token_offsets[-1]

    def inside(self, values: Tensor) -> Tensor:
        return torch.where(self._real_N, values, 0) if self._padded else values

    def summable(self, g: Tensor) -> Tensor:
        return g

    def dense(self, values: Tensor, latents: slice) -> Tensor:
        own_N = (self.latent_N >= latents.start) & (self.latent_N < latents.stop)
        if self._padded or values.device.type != "cpu":
            return self._dense_of(values, own_N & self._real_N, latents)
        own_N = own_N.nonzero().squeeze(1)
        at = self.token_N.index_select(0, own_N).long(), self.latent_N.index_select(0, own_N).long() - latents.start
        zeros_Bf = values.new_zeros(self.tokens, latents.stop - latents.start)
        return zeros_Bf.index_put(at, values.index_select(0, own_N))

    def _dense_of(self, values: Tensor, own_N: Tensor, latents: slice) -> Tensor:
        """The same without asking how many entries there are: what is left out goes to one place more."""
        width = latents.stop - latents.start
        place_N = torch.where(own_N, self.token_N.long() * width + self.latent_N - latents.start, self.tokens * width)
        flat = values.new_zeros(self.tokens * width + 1).index_copy(0, place_N, values)
        return flat[:-1].view(self.tokens, width)

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        out_RD = SparseDecode.apply(values, W_dec, self, self.defers("W_dec", W_dec))
        return out_RD.view(self.tokens, self.rows_per_token, -1)

    def errors(self, values: Tensor, W_dec: Tensor, b_dec_MD: Tensor, target_BMD: Tensor) -> Tensor:
        if target_BMD.requires_grad or not on_triton(W_dec):
            return super().errors(values, W_dec, b_dec_MD, target_BMD)
        found: Tensor = SparseErrors.apply(values, W_dec, b_dec_MD, target_BMD, self, self.defers("W_dec", W_dec))
        return found

    def decode_both(self, values: Tensor, others: Tensor, W_dec: Tensor, *, frozen: bool) -> tuple[Tensor, Tensor]:
        defers = frozen and self.defers("W_dec", W_dec)
        first_RD, second_RD = SparseDecodeBoth.apply(values, others, W_dec, self, frozen, defers)
        shape = (self.tokens, self.rows_per_token, -1)
        return first_RD.view(shape), second_RD.view(shape)

    def transposed_times(self, values: Tensor, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        by = self.transpose
        ordered_N, sums_F = ordered_sums(values, by.order_N, by.offsets)
        return weighted_row_sums(x_BD, by.token_N, ordered_N, by.offsets), sums_F

    def row_sums(self, values: Tensor, x_BD: Tensor) -> tuple[RowSums, Tensor]:
        by = self.transpose
        ordered_N, sums_F = ordered_sums(values, by.order_N, by.offsets)
        if self.scaled is not None:
            return RowSums(self.scaled.table_BD, by.token_N, ordered_N * self.scaled.scale, by.offsets), sums_F
        return RowSums(x_BD, by.token_N, ordered_N, by.offsets), sums_F

    def times(self, values: Tensor, rows_FD: Tensor) -> Tensor:
        return weighted_row_sums(rows_FD, self.latent_N, values, self.token_offsets)

    def at_latent(self, vector_F: Tensor) -> Tensor:
        if vector_F.device.type == "cpu" and not on_triton(vector_F):
            return vector_F.index_select(0, self.latent_N)
        found: Tensor = _AtLatent.apply(vector_F, self)  # torch's own would add gradients atomically there
        return found

    def member_sums(self, values: Tensor) -> Tensor:
        # By row first: a running fp32 sum over all entries would lose four digits.
        rows = _BagSums.apply(values, self.row_offsets, self.row_N)
        return rows.view(self.tokens, self.rows_per_token).sum(0)

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


class RelaidCodes(SparseCodes):
    """The entries of other codes in another layout of the same latents."""

    def __init__(self, codes: SparseCodes, layout: Layout):
        super().__init__(codes.token_offsets, codes.latent_N, layout, codes._padded, codes.late)
        self._codes, self.rows_in = codes, codes.rows_in

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._codes.by_latent


class RankedCodes(SparseCodes):
    """Entries ordered by token, member and rank, and in parts by rank: a row is a (token, part) pair."""

    def __init__(self, codes: SparseCodes, order_N: Tensor, part_N: Tensor, parts: int):
        """Which entry of the other codes is the n-th, and its part, counted over all members."""
        latent_N = codes.latent_N.index_select(0, order_N)
        super().__init__(codes.token_offsets, latent_N, codes.layout, codes._padded, codes.late)
        self._part_N, self._parts, self.rows_in = part_N, parts, codes.rows_in

    @property
    def rows_per_token(self) -> int:
        return self._parts

    @cached_property
    def row_N(self) -> Tensor:
        return torch.add(self._part_N, self.token_N, alpha=self._parts)


def _parts(ends: Sequence[Sequence[int]], most: int) -> Tensor:
    """[M, K]: the part of each member's entry of each rank, counted over all members."""
    ranks_K = torch.arange(most)
    own = [torch.bucketize(ranks_K, torch.tensor(each[:-1]), right=True) for each in ends]
    firsts = accumulate([0, *map(len, ends)])
    return torch.stack([part_K + first for part_K, first in zip(own, firsts, strict=False)])


class Transpose:
    """Entries ordered by latent, and by token for each."""

    def __init__(self, codes: SparseCodes) -> None:
        self.offsets, self.order_N, self.token_N = codes.by_latent
        self._codes = codes

    @cached_property
    def row_N(self) -> Tensor:
        codes = self._codes
        return self.token_N if codes.rows_per_token == 1 else codes.row_N.index_select(0, self.order_N)


class _BagSums(torch.autograd.Function):
    """Sums of consecutive runs of entries; `bag_N` says in which run each entry is."""

    @staticmethod
    def forward(ctx: Any, values_N: Tensor, offsets: Tensor, bag_N: Tensor) -> Tensor:
        ctx.bag_N = bag_N
        return bag_sums(values_N, offsets)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        return g.index_select(0, ctx.bag_N), None, None


class _AtLatent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vector_F: Tensor, codes: SparseCodes) -> Tensor:
        ctx.codes = codes
        return vector_F.index_select(0, codes.latent_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g_N,) = gradients
        by = ctx.codes.transpose
        return ordered_sums(g_N, by.order_N, by.offsets)[1], None


class _LatentSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values_N: Tensor, codes: SparseCodes) -> Tensor:
        ctx.codes = codes
        return ordered_sums(values_N, codes.transpose.order_N, codes.transpose.offsets)[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g_F,) = gradients
        return ctx.codes.at_latent(g_F), None
