"""What the analyses of one command share: a finished sweep, its language models, and passes over held-out rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from sae_sweep.activations.first_block import read_first_block
from sae_sweep.analyses.session.batch import Batch
from sae_sweep.analyses.session.finished import FinishedSae, check_model
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.told import Told, unseen
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.evaluation.language_model import LanguageModelEvaluator
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.plan.groups import stream_key
from sae_sweep.training.run.sources import LanguageModelSource


@dataclass(frozen=True)
class Stream:
    """A language model with its tokens, and the members that read them, on its device."""

    model: LanguageModel
    evaluator: LanguageModelEvaluator
    saes: Mapping[str, SplicedSae]
    """By label."""
    bos: bool
    """Whether its rows begin with BOS."""
    source: LanguageModelSource
    """What its members were trained on."""


class Streams:
    """Those of the members of a sweep; models are loaded when the first is asked for."""

    def __init__(self, saes: Sequence[FinishedSae]) -> None:
        self._saes = tuple(saes)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Batches of held-out rows, of each stream in turn, from the batch of that number on."""
        for stream in self.opened:
            count = stream.evaluator.batch_count
            if start < count:
                for rows in stream.evaluator.batches(start):
                    yield Batch(stream.model, rows, stream.evaluator, stream.saes)
            start = max(0, start - count)

    @property
    def batch_count(self) -> int:
        """How many there are."""
        return sum(stream.evaluator.batch_count for stream in self.opened)

    @cached_property
    def opened(self) -> list[Stream]:
        """All of them. Raises ConfigError where there is no language model, and where it is no longer what it was."""
        check_model(self._saes)
        streams: dict[str, list[FinishedSae]] = {}
        for sae in self._saes:
            streams.setdefault(stream_key(sae.member.config), []).append(sae)
            sae.check_content()
        return [_opened(saes) for saes in streams.values()]


def _opened(saes: Sequence[FinishedSae]) -> Stream:
    spliced = {sae.label: sae.spliced for sae in saes}
    hooks = tuple(dict.fromkeys(hook for one in spliced.values() for hook in one.hooks))
    reads = tuple(dict.fromkeys(hook for one in spliced.values() for hook in one.inputs))
    config = saes[0].member.config
    first_block = read_first_block(sae.folder for sae in saes)
    configs, every = [sae.member.config for sae in saes], tuple(dict.fromkeys((*hooks, *reads)))
    source = LanguageModelSource(config, every, configs, first_block=first_block)
    no_means = {hook: torch.zeros(0) for hook in hooks}  # nothing is ablated
    evaluator = source.evaluator(config.evaluation.positions, no_means)
    on_device = {label: one.on(source.device) for label, one in spliced.items()}
    return Stream(source.model, evaluator, on_device, bool(source.metadata()["prepend_bos"]), source)


@dataclass(frozen=True)
class Session:
    """The finished members of a sweep, for one analysis of a command."""

    saes: tuple[FinishedSae, ...]
    streams: Streams
    kept: Kept = field(default_factory=Kept)
    """What the analysis has found so far: all that is to last longer than a batch."""
    told: Told = field(default_factory=unseen)
    """Is told of what takes long between passes."""

    @classmethod
    def of(cls, saes: Sequence[FinishedSae]) -> "Session":
        """One that keeps nothing in files and tells nobody."""
        return cls(tuple(saes), Streams(saes))

    def stream(self, label: str) -> Stream:
        """The one that a member reads."""
        return next(stream for stream in self.streams.opened if label in stream.saes)

    def over(self, stream: Stream, tokens_RT: Tensor, rows_at_once: int, what: str) -> Iterator[Batch]:
        """Batches of other rows than the held-out ones, read once: an analysis that goes on is given those that it
        lacks, by the name of what it reads."""
        evaluator = stream.evaluator.over(tokens_RT, rows_at_once)
        done = self.kept.zeros(f"batches of {what}", 1)
        for number, rows in enumerate(evaluator.batches(int(done)), int(done)):
            self.told(what, number, evaluator.batch_count)
            yield Batch(stream.model, rows, evaluator, stream.saes)
            done += 1
            self.kept.save_now_and_then()

    def means(self, label: str) -> Means:
        """Sums over the held-out rows that a member reads."""
        return Means(self.kept, label, self.stream(label).evaluator.rows)

    def strings(self, label: str, tokens: Tensor) -> list[str]:
        """What each token id reads, one by one. Raises ConfigError where the model ships no tokenizer."""
        tokenizer = self.stream(label).model.tokenizer
        if tokenizer is None:
            raise ConfigError(f"eval: the model of {label} ships no tokenizer, which this analysis needs")
        return [tokenizer.decode([each], clean_up_tokenization_spaces=False) for each in tokens.flatten().tolist()]
