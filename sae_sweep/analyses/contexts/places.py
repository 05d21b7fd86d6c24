"""Where some latents of a member fire: the places that are kept of each while held-out rows go by.

Of L latents there are C places each: the rows that a latent is largest on; a fair sample of all places at which it
fires; and one of positions at which it does not. A place is a row, a position, the activation there, and those of the
tokens around it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.analyses.session.kept import Kept
from sae_sweep.kernels.entries import Entries

NOTHING = -torch.inf


@dataclass(frozen=True)
class Place:
    """One of them."""

    row: int
    first: int
    """The position that the window begins at."""
    position: int
    window: list[float]
    """Activations of the tokens from `first` on."""

    @property
    def activation(self) -> float:
        """At the position."""
        return self.window[self.position - self.first]


class Places:
    """The places of one kind that were best so far, by an order that whoever adds them says."""

    def __init__(self, kept: Kept, name: str, sizes: tuple[int, int], width: int) -> None:
        """`sizes` are latents and places of each; windows have `width` tokens on either side."""
        L, C = sizes
        self._width = width
        self._order = kept.zeros(f"{name}/order", L, C)
        self._where = kept.zeros(f"{name}/where", L, C, 2, dtype=torch.int64)
        self._window = kept.zeros(f"{name}/window", L, C, 2 * width + 1, dtype=torch.float32)
        begun = kept.zeros(f"{name}/begun", 1)
        if not begun:
            self._order.fill_(NOTHING)
            begun.fill_(1)

    def add(self, order_LRT: Tensor, f_LRT: Tensor, first_row: int) -> None:
        """Places of a batch: the larger their order the better; none where it is `NOTHING`."""
        L, R, T = order_LRT.shape
        count = min(self._order.shape[1], R * T)
        best_LC, at_LC = order_LRT.reshape(L, R * T).topk(count, dim=1)
        row_LC, position_LC = at_LC // T, at_LC % T
        span_W = torch.arange(-self._width, self._width + 1)
        near_LCW = position_LC[..., None] + span_W
        latent_L11 = torch.arange(L)[:, None, None]
        window_LCW = f_LRT[latent_L11, row_LC[..., None], near_LCW.clamp(0, T - 1)]
        window_LCW = window_LCW.masked_fill((near_LCW < 0) | (near_LCW >= T), 0)
        where_LC2 = torch.stack([row_LC + first_row, position_LC], dim=2)
        self._merge(best_LC.double(), where_LC2, window_LCW.float())

    def _merge(self, order_LC: Tensor, where_LC2: Tensor, window_LCW: Tensor) -> None:
        both = torch.cat([self._order, order_LC], dim=1)
        kept_LC, index_LC = both.topk(self._order.shape[1], dim=1)
        where = torch.cat([self._where, where_LC2], dim=1)
        window = torch.cat([self._window, window_LCW], dim=1)
        self._order.copy_(kept_LC)
        self._where.copy_(where.gather(1, index_LC[..., None].expand(-1, -1, 2)))
        self._window.copy_(window.gather(1, index_LC[..., None].expand(-1, -1, window.shape[2])))

    def of(self, number: int, context: int) -> list[Place]:
        """Those of one of the latents, the best first; rows have `context` tokens."""
        found = []
        for order, (row, position), window in zip(
            self._order[number].tolist(), self._where[number].tolist(), self._window[number].tolist(), strict=True
        ):
            if order > NOTHING:
                first, last = max(0, position - self._width), min(context, position + self._width + 1)
                begin = first - (position - self._width)
                found.append(Place(row, first, position, window[begin : begin + last - first]))
        return found


def dense(codes: Entries, counted_RT: Tensor, latents_L: Tensor) -> Tensor:
    """[L, R, T] on the CPU: activations of some latents, 0 where they do not fire or nothing counts."""
    codes = Entries(*(each.cpu() for each in codes))
    counted_RT = counted_RT.cpu()
    token_N = torch.repeat_interleave(codes.offsets.diff().long())
    number_F = torch.full((int(max(latents_L.max(), codes.column_N.max() if len(codes.column_N) else 0)) + 1,), -1)
    number_F[latents_L] = torch.arange(len(latents_L))
    number_N = number_F[codes.column_N.long()]
    chosen_N = number_N >= 0
    f_LB = torch.zeros(len(latents_L), len(codes.offsets) - 1)
    f_LB[number_N[chosen_N], token_N[chosen_N]] = codes.value_N[chosen_N].float()
    f_LRT = torch.zeros(len(latents_L), *counted_RT.shape)
    f_LRT[:, counted_RT] = f_LB
    return f_LRT


def best_of_rows(f_LRT: Tensor) -> Tensor:
    """[L, R, T]: each row's largest activation where it is, and nothing elsewhere."""
    best_LR1, at_LR1 = f_LRT.max(dim=2, keepdim=True)
    order_LRT = torch.full_like(f_LRT, NOTHING)
    return order_LRT.scatter_(2, at_LR1, torch.where(best_LR1 > 0, best_LR1, NOTHING))
