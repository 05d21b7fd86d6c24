"""Some held-out rows after their clean pass, and what members make of them, each made once for all analyses."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.evaluation.heldout import HeldOutBatch
from sae_sweep.evaluation.language_model import LanguageModelEvaluator, read_by
from sae_sweep.evaluation.splice import measured
from sae_sweep.kernels.entries import Entries
from sae_sweep.model.language_model import LanguageModel

Made = TypeVar("Made")
CLEAN = "clean"


@dataclass(frozen=True)
class Lost:
    """What passes lose at N positions that have a target, in nats; of a crosscoder, at each of its sites in turn."""

    sequence_N: Tensor
    """The held-out row of each."""
    position_N: Tensor
    """Its position in the row."""
    ce: Mapping[str, Tensor]
    """Cross-entropy [N] float64 by pass; the clean one's too."""
    kl: Mapping[str, Tensor]
    """The KL divergence from the clean pass."""


class Batch:
    """A batch of one stream of tokens."""

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

    @property
    def first(self) -> int:
        """The index of its first row among those of its stream."""
        return self.rows.first

    def of_others(self, saes: Mapping[str, SplicedSae]) -> "Batch":
        """The same rows for other SAEs, at hooks that the clean pass has recorded."""
        return Batch(self.model, self.rows, self._evaluator, saes)

    def coded(self, label: str) -> tuple[Entries, Tensor]:
        """The codes above 0 of a member at the positions that are replaced, in the order of the rows, and its
        reconstructions [N, d]."""
        return self.once(("coded", label), lambda: self._evaluator.coded(self.saes[label], self.rows))

    def codes(self, label: str) -> Entries:
        """The codes above 0 of a member at the counted positions, in the order of the rows."""
        return self.once(("codes", label), lambda: self._evaluator.codes(self.saes[label], self.rows))

    def spliced(self, label: str) -> dict[str, Tensor]:
        """The final hidden states [R, T, D] with a member's reconstructions in place, by the hook they are put at."""
        return self.once(("spliced", label), lambda: self._evaluator.finals(self.saes[label], self.rows))

    def replaced(self, label: str) -> Tensor:
        """[R, T] bool: where a member's reconstructions are put."""
        return self.rows.places(self.saes[label].sites).replaced_RT

    def targets(self, label: str) -> Tensor:
        """[R, T] bool: where its numbers are measured, and a next token is to be predicted."""
        return self.rows.places(self.saes[label].sites).target_RT

    def counted(self, label: str) -> Tensor:
        """[R, T] bool: where its numbers are measured."""
        return self.rows.places(self.saes[label].sites).counted_RT

    def read(self, label: str, where_RT: Tensor) -> Tensor:
        """[N, d]: what a member reads at the positions of a mask."""
        return read_by(self.saes[label], self.rows, where_RT)[0]

    def written(self, label: str, where_RT: Tensor) -> Tensor:
        """[N, d]: what a member reconstructs at the positions of a mask; of a crosscoder its sites side by side."""
        return read_by(self.saes[label], self.rows, where_RT)[1]

    def decoded(self, label: str, codes: Entries) -> Tensor:
        """[N, d]: what a member makes of other codes at the positions that are replaced."""
        where_RT, sae = self.replaced(label), self.saes[label].sae
        with torch.no_grad():
            x_ND = self.read(label, where_RT).to(sae.tensors["W_enc"].dtype)
            return sae.decoded(codes, self.rows.clean.tokens_RT[where_RT], x_ND)

    def final(self, hook: str, value_ND: Tensor, where_RT: Tensor) -> Tensor:
        """The final hidden states [R, T, D] with other activations [N, d] of a hook at the positions of a mask;
        differentiable in these."""
        return self._evaluator.final(hook, self.rows, value_ND, where_RT)

    def lost_by(self, label: str) -> Lost:
        """What the model loses with a member spliced in; its pass has the member's label."""
        return self.once(("lost", label), lambda: self.lost(label, {label: self.coded(label)[1]}))

    def lost(
        self,
        label: str,
        values: Mapping[str, Tensor],
        where_RT: Tensor | None = None,
        measured_RT: Tensor | None = None,
    ) -> Lost:
        """What the model loses with other activations [N, d] where a member writes, by name; `where_RT` says where, if
        not where its reconstructions are put, `measured_RT` which positions it is measured at, if not all that count
        and have a target."""
        where_RT = self.replaced(label) if where_RT is None else where_RT
        hooks = self.saes[label].hooks
        parts = {name: value_ND.chunk(len(hooks), dim=1) for name, value_ND in values.items()}
        found = [
            self._lost_at(label, hook, {name: part[i] for name, part in parts.items()}, where_RT, measured_RT)
            for i, hook in enumerate(hooks)
        ]
        if len(found) == 1:
            return found[0]
        return Lost(
            torch.cat([one.sequence_N for one in found]),
            torch.cat([one.position_N for one in found]),
            {name: torch.cat([one.ce[name] for one in found]) for name in found[0].ce},
            {name: torch.cat([one.kl[name] for one in found]) for name in found[0].kl},
        )

    @torch.no_grad()
    def _lost_at(
        self, label: str, hook: str, values: Mapping[str, Tensor], where_RT: Tensor, measured_RT: Tensor | None
    ) -> Lost:
        target_RT = self.rows.places(self.saes[label].sites).target_RT
        if measured_RT is not None:
            target_RT = target_RT & measured_RT
        finals = [self.final(hook, value_ND, where_RT)[target_RT] for value_ND in values.values()]
        row_N, position_N = target_RT.nonzero(as_tuple=True)
        next_N = self.rows.clean.tokens_RT[row_N, position_N + 1]
        clean_RTD = self.rows.clean.of(hook).final_RTD
        ce, kl = measured(self._evaluator.model_at(hook), clean_RTD[target_RT], finals, next_N)
        names = (CLEAN, *values)
        by_name = (dict(zip(names, each, strict=True)) for each in (ce, kl))
        return Lost(row_N + self.first, position_N, *by_name)

    def once(self, name: Hashable, make: Callable[[], Made]) -> Made:
        """What was made of this batch under a name, by whichever analysis; else what is made now."""
        with torch.no_grad():
            if name not in self._made:
                self._made[name] = make()
            made: Made = self._made[name]
            return made
