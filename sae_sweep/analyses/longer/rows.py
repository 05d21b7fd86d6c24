"""Held-out rows laid end to end and cut anew into longer ones, and where each token was in the shorter."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Longer:
    """The longer rows; those of text begin with BOS, where the shorter do."""

    tokens_RT: Tensor
    """[R, context] int64; a position that does not count holds ~id."""
    short: int
    """Tokens of a shorter row."""
    first: int
    """The first position that text is at: 1 behind a BOS, else 0."""

    @classmethod
    def of(cls, short_RT: Tensor, context: int, *, bos: bool) -> "Longer":
        """As many as the shorter rows give; what is over is left out."""
        first = int(bos)
        text_N = short_RT[:, first:].reshape(-1)
        rows = len(text_N) // (context - first)
        body_RT = text_N[: rows * (context - first)].view(rows, context - first)
        return cls(torch.cat([short_RT[:1, :first].expand(rows, first), body_RT], dim=1), short_RT.shape[1], first)

    @property
    def context(self) -> int:
        """Tokens of a longer row."""
        return self.tokens_RT.shape[1]

    def place(self, row_N: Tensor, position_N: Tensor) -> tuple[Tensor, Tensor]:
        """The row and position of tokens of shorter rows in the longer ones; the row of one that is in none is beyond
        them."""
        number_N = row_N * (self.short - self.first) + position_N - self.first
        body = self.context - self.first
        return number_N // body, number_N % body + self.first

    def before_T(self, row: int) -> Tensor:
        """[context]: at which position of a shorter row each token of a longer one was; -1 at its BOS."""
        position_T = torch.arange(self.context)
        number_T = row * (self.context - self.first) + position_T - self.first
        return torch.where(position_T >= self.first, number_T % (self.short - self.first) + self.first, -1)

    def beyond_RT(self, rows: range) -> Tensor:
        """[R, context] bool: positions of some rows that shorter ones do not reach, of tokens that in these too have
        tokens on both sides."""
        before_RT = torch.stack([self.before_T(row) for row in rows])
        position_T = torch.arange(self.context)
        return (position_T >= self.short) & (before_RT > 0) & (before_RT < self.short - 1)
