"""Tables of unigrams and bigrams: what a model that knows no more than the last token would lose.

A token b after a has the probability (n(a, b) + t(a) p(b)) / (n(a) + t(a)), where t(a) is how many different tokens
were seen after a, and p(b) the same of no context at all, with equal probabilities below it (Witten and Bell 1991).
"""

from collections.abc import Iterator
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
    """Those of the first tokens that a stream trains on: held-out ones are not among them."""
    vocabulary = stream.model.facts.vocab_size

    def counted() -> Tensor:
        found, count = [], 0
        for pair_N in _pairs(stream):
            told("clusters: counting pairs of tokens", min(count, tokens), tokens)
            found.append(pair_N[: tokens - count])
            count += len(found[-1])
            if count >= tokens:
                break
        return torch.stack(torch.cat(found).unique(return_counts=True))

    pair_P, count_P = kept.once(name, counted)
    return Ngrams(pair_P, count_P, vocabulary)


def _pairs(stream: Stream) -> Iterator[Tensor]:
    """[N] of each block of the first epoch: tokens that count with the next, where that is no special one."""
    special_ids, index = stream.model.special_ids, 0
    while True:
        rows, epoch = stream.source.training_rows(index)
        if epoch > 0:
            return
        tokens_RT = torch.from_numpy(rows).long()
        counted_RT = counted_positions(tokens_RT, special_ids, stream.model.bos_id)
        row_N, position_N = target_positions(counted_RT, tokens_RT, special_ids).nonzero(as_tuple=True)
        yield tokens_RT[row_N, position_N] * stream.model.facts.vocab_size + tokens_RT[row_N, position_N + 1]
        index += 1
