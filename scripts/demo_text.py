"""The demo corpus in tokens: a tokenizer of its own, rows to train on, and what predicts them without a model."""

from collections.abc import Iterator, Sequence

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import pad
from transformers import PreTrainedTokenizerFast

EOS = "<|endoftext|>"  # the only special token: it opens every row and parts the documents
EOS_ID = 0
VOCABULARY = 4096
MAX_POSITIONS = 512

Documents = Sequence[Sequence[int]]


def train_tokenizer(documents: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE: any text encodes without an unknown token and decodes to itself."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=EOS,
        eos_token=EOS,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,  # it would eat the space before a full stop, and code has many
    )


def encode(tokenizer: PreTrainedTokenizerFast, documents: Sequence[str]) -> list[list[int]]:
    """Token ids of each document, without special tokens."""
    return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch_fast(list(documents))]


def stream(documents: Documents) -> torch.Tensor:
    """All documents end to end, each closed by <|endoftext|>."""
    return torch.cat([torch.tensor([*document, EOS_ID], dtype=torch.int32) for document in documents])


def pack(tokens: torch.Tensor, context: int) -> torch.Tensor:
    """Rows of `context` tokens that each begin with <|endoftext|>; the incomplete last row is dropped.

    Every row begins alike because attention rests on its first token, whatever that is: let that token mean nothing.
    """
    body = context - 1
    rows = tokens[: len(tokens) // body * body].view(-1, body).long()
    return pad(rows, (1, 0), value=EOS_ID)


def training_rows(documents: Documents, context: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Rows without end. Each epoch has a new order of documents and a new offset, so no row is seen twice."""
    while True:
        order = torch.randperm(len(documents), generator=generator).tolist()
        offset = int(torch.randint(context - 1, (), generator=generator))
        rows = pack(stream([documents[index] for index in order])[offset:], context)
        yield from rows[torch.randperm(len(rows), generator=generator)]


def unigram_probabilities(train: torch.Tensor) -> torch.Tensor:
    """Add-one frequencies of the training stream, float64 [vocabulary]."""
    counts = torch.bincount(train, minlength=VOCABULARY).double() + 1
    return counts / counts.sum()


def unigram_cross_entropy(train: torch.Tensor, rows: torch.Tensor) -> float:
    """Nats per token of the rows' targets, which are all their tokens but the first."""
    return -unigram_probabilities(train)[rows[:, 1:]].log().mean().item()


def bigram_cross_entropy(train: torch.Tensor, rows: torch.Tensor) -> float:
    """Nats per token under a bigram that falls back on the unigram: (c(ab) + k p(b)) / (c(a) + k).

    k is the best of a grid on the rows themselves: choosing it on what it is judged by favours the baseline, not us.
    """
    unigram = unigram_probabilities(train)
    pairs = train[:-1].long() * VOCABULARY + train[1:].long()
    pair_counts = torch.bincount(pairs, minlength=VOCABULARY**2)
    context_counts = torch.bincount(train[:-1], minlength=VOCABULARY).double()

    before, target = rows[:, :-1].flatten(), rows[:, 1:].flatten()
    seen, total, fallback = pair_counts[before * VOCABULARY + target], context_counts[before], unigram[target]
    grid = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    return min(-((seen + k * fallback) / (total + k)).log().mean().item() for k in grid)
