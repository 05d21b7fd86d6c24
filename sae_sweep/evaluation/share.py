"""How far an evaluation is, within a batch of held-out rows too: there may be but one, and minutes of passes in it."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from sae_sweep.model.facts import ModelFacts
from sae_sweep.model.sites import model_of, parse_hook
from sae_sweep.plan.flops import clean_flops, logit_flops, suffix_flops

Hooks: TypeAlias = tuple[str, ...]
"""Of one model, where a pass has other activations."""
ALMOST = 0.9999
"""The most of a batch that is said to be done before it is over."""


class Share:
    """The share of an evaluation that is done, which `done` is told: by what passes and their logits cost."""

    def __init__(
        self,
        done: Callable[[float], None],
        models: Sequence[ModelFacts],
        passes: Sequence[Sequence[Hooks]],
        rows: int,
        context: int,
    ) -> None:
        """`passes` are all of a batch but the clean ones, those together that are measured together. There are `rows`
        rows of `context` tokens."""
        self._done, self._rows = done, rows
        self._clean = sum(clean_flops(facts, context) for facts in models)
        self._logits = [logit_flops(facts) for facts in models]
        self._suffix, self._whole = dict[Hooks, float](), self._clean
        for together in passes:
            for hooks in together:
                number = model_of(hooks[0])
                self._suffix[hooks] = suffix_flops(parse_hook(hooks[0]), models[number], context)
                self._whole += self._suffix[hooks] + self._logits[number]
            self._whole += sum(self._logits[number] for number in {model_of(hooks[0]) for hooks in together})
        self._first = self._in_batch = 0
        self._spent = 0.0

    def batch(self, first: int, rows: int) -> None:
        """The clean pass of these rows is over."""
        self._first, self._in_batch, self._spent = first, rows, 0.0
        self._add(self._clean)

    def passed(self, hooks: Hooks) -> None:
        """A pass with other activations at these hooks is over."""
        self._add(self._suffix[hooks])

    def measured(self, number: int, passes: int, part: float) -> None:
        """This part of the logits of so many passes of a model."""
        self._add(part * passes * self._logits[number])

    def over(self) -> None:
        """The batch is."""
        self._done((self._first + self._in_batch) / self._rows)

    def _add(self, flops: float) -> None:
        self._spent += flops
        self._done((self._first + self._in_batch * min(ALMOST, self._spent / self._whole)) / self._rows)
