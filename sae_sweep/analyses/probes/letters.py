"""Tokens that begin with a letter, and a bounded sample of where they stand in held-out rows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.analyses.session.kept import Kept

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHORTEST = 3
"""Letters of a word that begins with one rather than is one."""


def first_letters(strings: Sequence[str]) -> Tensor:
    """[V] int64: the number of the letter that a token's word begins with; -1 for what is no word."""
    words = [string.strip() for string in strings]
    found = [
        LETTERS.index(word[0].lower()) if len(word) >= SHORTEST and word.isascii() and word.isalpha() else -1
        for word in words
    ]
    return torch.tensor(found, dtype=torch.int64)


class Sample:
    """Activations at one site of words: of each token the first so many, up to a number in all."""

    def __init__(self, kept: Kept, name: str, sizes: tuple[int, int], vocabulary: int, each: int) -> None:
        """`sizes` are how many there are at most, and the width of the site."""
        most, d = sizes
        self._each = each
        self._x = kept.zeros(f"{name}/x", most, d)
        self._tokens = kept.zeros(f"{name}/tokens", most, dtype=torch.int64)
        self._taken = kept.zeros(f"{name}/taken", vocabulary, dtype=torch.int64)
        self._count = kept.zeros(f"{name}/count", 1, dtype=torch.int64)

    def add(self, x_ND: Tensor, tokens_N: Tensor, letter_V: Tensor) -> None:
        """Take of N tokens those that are words and are not enough yet."""
        tokens_N = tokens_N.cpu()
        rank_N = _occurrence(tokens_N)
        wanted_N = (letter_V[tokens_N] >= 0) & (self._taken[tokens_N] + rank_N < self._each)
        room = len(self._tokens) - int(self._count)
        index = wanted_N.nonzero()[:, 0][:room]
        begin, end = int(self._count), int(self._count) + len(index)
        self._x[begin:end] = x_ND[index.to(x_ND.device)].cpu().double()
        self._tokens[begin:end] = tokens_N[index]
        self._taken.index_add_(0, tokens_N[index], torch.ones_like(index))
        self._count += len(index)

    @property
    def taken(self) -> tuple[Tensor, Tensor]:
        """[n, d] float64 and [n]: the activations, and the token ids they are at."""
        n = int(self._count)
        return self._x[:n], self._tokens[:n]


def _occurrence(tokens_N: Tensor) -> Tensor:
    """[N]: how often each token has stood before it among these."""
    order_N = tokens_N.argsort(stable=True)
    sorted_N = tokens_N[order_N]
    rank_N = torch.empty_like(tokens_N)
    rank_N[order_N] = torch.arange(len(tokens_N)) - torch.searchsorted(sorted_N, sorted_N)
    return rank_N
