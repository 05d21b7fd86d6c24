"""Tables of unigrams and bigrams: what a model that knows no more than the last token would lose.

A token b after a has the probability (n(a, b) + t(a) p(b)) / (n(a) + t(a)), where t(a) is how many different tokens
were seen after a, and p(b) the same of no context at all, with equal probabilities below it (Witten and Bell 1991).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.session import Stream
from sae_sweep.analyses.session.told import Told
from sae_sweep.data.positions import counted_positions, target_positions


@dataclass(frozen=True)
class Ngrams:
    """Counts of pairs of tokens."""

    pair_P: Tensor
    """[P] int64: first x vocabulary + next, in order."""
    count_P: Tensor
    """How often each was seen."""
    vocabulary: int

    @classmethod
    def of(cls, pair_N: Tensor, vocabulary: int) -> "Ngrams":
        """Those of a text."""
        pair_P, count_P = pair_N.unique(return_counts=True)
        return cls(pair_P, count_P, vocabulary)

    def unigram(self, next_N: Tensor) -> Tensor:
        """[N] float64: the cross-entropy of tokens by themselves, in nats."""
        return -self._unigram().to(next_N.device)[next_N].log()

    def bigram(self, first_N: Tensor, next_N: Tensor) -> Tensor:
        """[N] float64: the cross-entropy of tokens after others, in nats."""
        first_P = self.pair_P // self.vocabulary
        seen_V = torch.bincount(first_P, self.count_P.double(), minlength=self.vocabulary).to(next_N.device)
        kinds_V = torch.bincount(first_P, minlength=self.vocabulary).double().to(next_N.device)
        pair_P, count_P = self.pair_P.to(next_N.device), self.count_P.to(next_N.device)
        pair_N = first_N * self.vocabulary + next_N
        place_N = torch.searchsorted(pair_P, pair_N).clamp(max=max(0, len(pair_P) - 1))
        count_N = torch.where(pair_P[place_N] == pair_N, count_P[place_N], 0).double()
        alone_N = self._unigram().to(next_N.device)[next_N]
        above_N, below_N = count_N + kinds_V[first_N] * alone_N, seen_V[first_N] + kinds_V[first_N]
        return -torch.where(below_N > 0, above_N / below_N.clamp(min=1), alone_N).log()

    def _unigram(self) -> Tensor:
        count_V = torch.bincount(self.pair_P % self.vocabulary, self.count_P.double(), minlength=self.vocabulary)
        kinds = (count_V > 0).sum()
        return (count_V + kinds / self.vocabulary) / (count_V.sum() + kinds)


def of_stream(kept: Kept, name: str, stream: Stream, tokens: int, told: Told) -> Ngrams:
    """Those of the first tokens that a stream trains on, of which held-out ones are none; kept after each block."""
    vocabulary = stream.model.facts.vocab_size
    read_2 = kept.zeros(f"{name}/blocks and pairs", 2)
    counted_2P = kept.once(name, lambda: torch.zeros(2, 0, dtype=torch.int64))
    while (left := tokens - int(read_2[1])) > 0:
        told("clusters: counting pairs of tokens", int(read_2[1]), tokens)
        pair_N = _pairs(stream, int(read_2[0]))
        if pair_N is None:
            break
        counted_2P = _with(counted_2P, pair_N[:left])
        kept.put(name, counted_2P)
        read_2 += torch.tensor([1, len(pair_N[:left])])
        kept.save_now_and_then()
    pair_P, count_P = counted_2P
    return Ngrams(pair_P, count_P, vocabulary)


def _with(counted_2P: Tensor, pair_N: Tensor) -> Tensor:
    """[2, P]: pairs and their counts, with more of them."""
    every = torch.cat([counted_2P[0], pair_N])
    pair_P, of_N = every.unique(return_inverse=True)
    counts_N = torch.cat([counted_2P[1], torch.ones_like(pair_N)])
    return torch.stack([pair_P, torch.zeros_like(pair_P).index_add_(0, of_N, counts_N)])


def _pairs(stream: Stream, index: int) -> Tensor | None:
    """[N] of a block: tokens that count with the next, where that is no special one. None beyond the first epoch."""
    rows, epoch = stream.source.training_rows(index)
    if epoch > 0:
        return None
    special_ids, tokens_RT = stream.model.special_ids, torch.from_numpy(rows).long()
    counted_RT = counted_positions(tokens_RT, special_ids, stream.model.bos_id)
    row_N, position_N = target_positions(counted_RT, tokens_RT, special_ids).nonzero(as_tuple=True)
    return tokens_RT[row_N, position_N] * stream.model.facts.vocab_size + tokens_RT[row_N, position_N + 1]
