"""What the analyses of one command share: a finished sweep, its language models, and passes over held-out rows."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from sae_sweep.analyses.session.finished import FinishedSae, check_model
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.evaluation.heldout import HeldOutBatch
from sae_sweep.evaluation.language_model import LanguageModelEvaluator
from sae_sweep.kernels.entries import Entries
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.plan.groups import stream_key
from sae_sweep.training.run.sources import LanguageModelSource

Made = TypeVar("Made")


class Batch:
    """Some held-out rows after their clean pass, and what members make of them, each made once."""

    def __init__(
        self,
        model: LanguageModel,
        rows: HeldOutBatch,
        evaluator: LanguageModelEvaluator,
        saes: Mapping[str, SplicedSae],
    ) -> None:
        """`saes` are the members that read these rows, by label."""
        self.model, self.rows, self.saes = model, rows, saes
        self._evaluator = evaluator
        self._made: dict[Hashable, Any] = {}

    def codes(self, label: str) -> Entries:
        """The codes above 0 of a member at the counted positions, in the order of the rows."""
        return self._once(("codes", label), lambda: self._evaluator.codes(self.saes[label], self.rows))

    def spliced(self, label: str) -> dict[str, Tensor]:
        """The final hidden states [R, T, D] with a member's reconstructions in place, by the hook they are put at."""
        return self._once(("spliced", label), lambda: self._evaluator.finals(self.saes[label], self.rows))

    def _once(self, name: Hashable, make: Callable[[], Made]) -> Made:
        with torch.no_grad():
            if name not in self._made:
                self._made[name] = make()
            made: Made = self._made[name]
            return made


class Session:
    """The finished members of a sweep, for the analyses of one command."""

    def __init__(self, saes: Sequence[FinishedSae]) -> None:
        self.saes = tuple(saes)

    def batches(self) -> Iterator[Batch]:
        """Batches of held-out rows, of each stream of tokens in turn. Raises ConfigError for toy data: it has none."""
        for source, evaluator, saes in self._streams:
            for rows in evaluator.batches():
                yield Batch(source.model, rows, evaluator, saes)

    @cached_property
    def _streams(self) -> list[tuple[LanguageModelSource, LanguageModelEvaluator, dict[str, SplicedSae]]]:
        """Each language model with its tokens, and the members that read them, on its device."""
        check_model(self.saes)
        streams: dict[str, list[FinishedSae]] = {}
        for sae in self.saes:
            streams.setdefault(stream_key(sae.member.config), []).append(sae)
        return [self._opened(saes) for saes in streams.values()]

    @staticmethod
    def _opened(
        saes: Sequence[FinishedSae],
    ) -> tuple[LanguageModelSource, LanguageModelEvaluator, dict[str, SplicedSae]]:
        spliced = {sae.label: sae.spliced for sae in saes}
        hooks = tuple(dict.fromkeys(hook for one in spliced.values() for hook in one.hooks))
        reads = tuple(dict.fromkeys(one.reads for one in spliced.values() if one.reads is not None))
        config = saes[0].member.config
        source = LanguageModelSource(config, (*hooks, *reads), [sae.member.config for sae in saes])
        no_means = {hook: torch.zeros(0) for hook in hooks}  # nothing is ablated
        evaluator = source.evaluator(config.evaluation.positions, no_means)
        return source, evaluator, {label: one.on(source.device) for label, one in spliced.items()}

    def _batches(self) -> Iterator[Batch]:
        for source, evaluator, saes in self._streams:
            for rows in evaluator.batches():
                yield Batch(source.model, rows, evaluator, saes)
