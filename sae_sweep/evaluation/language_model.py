"""Evaluating members on held-out tokens of a language model.

What a sweep shares is computed once, and what a member adds is one suffix pass.

For each batch of held-out rows there is one clean pass, one zero and one mean ablation per site (suffix passes all),
and one spliced suffix pass per member. Only counted positions are replaced (`evaluation.positions=counted`), and
averages run over counted positions whose target is not special. A crosscoder is spliced at each of its sites in turn,
as are the ablations it is measured by, and its numbers are averages over them: all at once, the last site of a residual
stream would be all that counts. A cross-layer transcoder takes the place of all its MLPs at once, with the codes of the
clean pass. Of a crosscoder over two models each pass is measured against the clean pass of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from sae_sweep.activations.first_block import FirstBlock
from sae_sweep.evaluation.evaluator import Evaluation, SplicedSae
from sae_sweep.evaluation.heldout import HeldOut, HeldOutBatch, Places, heldout_batches
from sae_sweep.evaluation.later import LaterSites
from sae_sweep.evaluation.metrics import MODELS
from sae_sweep.evaluation.share import Hooks, Share
from sae_sweep.evaluation.splice import PassLosses, accumulate, average, splice_metrics
from sae_sweep.evaluation.sums import SaeSums
from sae_sweep.host.cores import side_by_side, workers
from sae_sweep.kernels.entries import Entries, joined, rows_where
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.sites import model_of
from sae_sweep.model.together import Models, Suffixes
from sae_sweep.plan.constants import CODE_ELEMENTS

Finals: TypeAlias = Mapping[tuple[str, Hooks], Tensor]
"""By kind of pass, or an SAE's label, and hooks."""
ABLATIONS = {"zero": 0.0, "mean": 1.0}
"""By kind of pass: times the mean activation that it puts in place."""


class _Losses:
    """What passes lose at sites where the same positions count."""

    def __init__(self, sequences: int, device: torch.device, models: int) -> None:
        self.clean = [PassLosses(sequences, device) for _ in range(models)]
        self.passes: dict[str, PassLosses] = {}
        self._targets_R = torch.zeros(sequences, dtype=torch.int64, device=device)
        self.outliers = torch.zeros((), dtype=torch.float64, device=device)
        self.counted = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, models: Models, batch: HeldOutBatch, places: Places, finals: Finals, share: Share) -> None:
        """Take in a batch; `finals` are the final hidden states [N, D] at its targets."""
        row_N, position_N = places.target_RT.nonzero(as_tuple=True)
        next_N = batch.clean.tokens_RT[row_N, position_N + 1]
        for number, (model, clean) in enumerate(zip(models, (batch.clean, *batch.clean.others), strict=True)):
            own = {_name(kind, at): x_ND for (kind, at), x_ND in finals.items() if model_of(at[0]) == number}
            if not own:
                continue  # nothing is measured in this one
            for name in own.keys() - self.passes.keys():
                self.passes[name] = PassLosses(len(self._targets_R), self._targets_R.device)
            sums = {"clean": self.clean[number], **self.passes}
            told = partial(share.measured, number, 1 + len(own))
            accumulate(model, clean.final_RTD[places.target_RT], own, next_N, row_N + batch.first, sums, told)
        self._targets_R.index_add_(0, row_N + batch.first, torch.ones_like(row_N))
        self.outliers += places.outliers_RT.sum()
        self.counted += places.counted_RT.sum()

    def metrics(self, label: str, passes: Sequence[Hooks]) -> dict[str, float | None]:
        """Of an SAE that was spliced in by these passes, averaged over them."""
        return splice_metrics(*self.averages(label, passes), self.targets_R)

    def averages(self, label: str, passes: Sequence[Hooks]) -> tuple[PassLosses, PassLosses, PassLosses, PassLosses]:
        """Of the clean, zero, mean and spliced passes; the clean ones are those of the models that these are of."""
        clean = average([self.clean[number] for number in sorted({model_of(hooks[0]) for hooks in passes})])
        zero, mean, own = (
            average([self.passes[_name(kind, hooks)] for hooks in passes]) for kind in ("zero", "mean", label)
        )
        return clean, zero, mean, own

    @property
    def targets_R(self) -> Tensor:
        """[R] float64: positions with a target in each sequence."""
        return self._targets_R.double()

    @property
    def outlier_fraction(self) -> float:
        """Of the positions that would count, the share that is left out for its norm."""
        return (self.outliers / (self.outliers + self.counted).clamp(min=1)).item()


class LanguageModelEvaluator:
    """Evaluates any number of SAEs at the given sites, on the same tokens each time."""

    def __init__(self, models: Models, heldout: HeldOut, means: Mapping[str, Tensor], read: Sequence[str] = ()):
        """`models` are one, or several that read the same tokens; `means` are the mean activations [d] by hook, which
        mean ablation puts in place; `read` are hooks that SAEs read or watch, if not only those."""
        self._models, self._heldout, self._means, self._read = tuple(models), heldout, means, read
        self._suffix = Suffixes(models, tuple(means), read)

    @property
    def first_block(self) -> FirstBlock:
        """What it goes by of the first block of the stream that SAEs were trained on."""
        return FirstBlock(self._means, self._heldout.largest_norms)

    @torch.no_grad()
    def evaluate(
        self, saes: Sequence[SplicedSae], done: Callable[[float], None] = lambda share: None
    ) -> dict[str, Evaluation]:
        """Metrics of every SAE, by label; `done` is told the share of the work that is done."""
        sequences, device = len(self._heldout.tokens_RT), self._suffix.device
        groups: dict[tuple[str, ...], list[SplicedSae]] = {}
        for one in saes:
            groups.setdefault(self._heldout.guarded(one.sites), []).append(one)
        losses = {sites: _Losses(sequences, device, len(self._models)) for sites in groups}
        sums = {one.label: SaeSums(one.sae, sequences, device, self._heldout.core, one.models) for one in saes}
        later = {one.label: LaterSites(self._widths(one.watched), device) for one in saes}
        ablated = {sites: sorted({hooks for one in own for hooks in one.passes}) for sites, own in groups.items()}
        facts = [model.facts for model in self._models]
        passes = [
            [*(hooks for one in own for hooks in one.passes), *ablated[sites] * len(ABLATIONS)]
            for sites, own in groups.items()
        ]
        share = Share(done, facts, passes, sequences, self._heldout.tokens_RT.shape[1])
        for batch in self.batches():
            share.batch(batch.first, len(batch.clean.tokens_RT))
            for sites, own in groups.items():
                places, finals = batch.places(sites), dict[tuple[str, Hooks], Tensor]()
                for hooks in ablated[sites]:
                    for kind, scale in ABLATIONS.items():
                        finals[kind, hooks] = self._ablated(batch, hooks, places, scale)
                        share.passed(hooks)
                for one, spliced in zip(own, self._spliced(own, batch, sums), strict=True):
                    for hooks in one.passes:
                        values = {hook: spliced[hook] for hook in hooks}
                        finals[one.label, hooks] = self._with_sae(batch, values, places, one, later[one.label])
                        share.passed(hooks)
                losses[sites].add(self._models, batch, places, finals, share)
            share.over()
        return {
            one.label: _evaluation(one, sums[one.label], later[one.label], losses[sites])
            for sites, own in groups.items()
            for one in own
        }

    def _spliced(
        self, saes: Sequence[SplicedSae], batch: HeldOutBatch, sums: Mapping[str, SaeSums]
    ) -> Iterator[dict[str, Tensor]]:
        """Each SAE's activations, by hook, with reconstructions in place; side by side where it pays."""
        device = self._suffix.device
        count = workers(device, len(saes))
        for first in range(0, len(saes), count):
            some = saes[first : first + count]
            yield from side_by_side(lambda one: _reconstructed(one, batch, sums[one.label]), some, device)

    def in_smaller_batches(self) -> "LanguageModelEvaluator | None":
        """The same evaluator, with half as many rows in a forward pass; None where it is one."""
        rows = self._heldout.rows_per_forward
        if rows == 1:
            return None
        return LanguageModelEvaluator(
            self._models, replace(self._heldout, rows_per_forward=rows // 2), self._means, self._read
        )

    def model_at(self, hook: str) -> LanguageModel:
        """The model that a hook is of."""
        return self._models[model_of(hook)]

    def over(self, tokens_RT: Tensor, rows_per_forward: int) -> "LanguageModelEvaluator":
        """The same evaluator, on other rows [R, T] int64; a position that does not count holds ~id."""
        made = copy(self)
        made._heldout = replace(self._heldout, tokens_RT=tokens_RT, rows_per_forward=rows_per_forward)
        return made

    @property
    def rows_per_forward(self) -> int:
        """Rows of a batch."""
        return self._heldout.rows_per_forward

    @property
    def rows(self) -> int:
        """How many held-out rows there are."""
        return len(self._heldout.tokens_RT)

    @property
    def batch_count(self) -> int:
        """How many batches they make."""
        return -(-self.rows // self._heldout.rows_per_forward)

    @property
    def tokens_RT(self) -> Tensor:
        """[R, T] int64: the held-out rows; a position that does not count holds ~id."""
        return self._heldout.tokens_RT

    def batches(self, start: int = 0) -> Iterator[HeldOutBatch]:
        """The held-out rows in their order, each batch after its clean pass, from the batch of that number on. Raises
        ConfigError where the model gives what is no number."""
        return heldout_batches(self._heldout, self._suffix, start)

    def coded(self, one: SplicedSae, batch: HeldOutBatch) -> tuple[Entries, Tensor]:
        """The codes above 0 of an SAE at the positions that are replaced, in the order of the rows, and its
        reconstructions [N, d]."""
        where_RT = batch.places(one.sites).replaced_RT
        x_ND, _ = read_by(one, batch, where_RT)
        tokens_N = batch.clean.tokens_RT[where_RT]
        step = max(1, CODE_ELEMENTS[x_ND.device.type] // one.sae.width)
        parts = zip(x_ND.to(one.sae.tensors["W_enc"].dtype).split(step), tokens_N.split(step), strict=True)
        pieces, x_hat = zip(*(one.sae.coded(x_BD, tokens_B) for x_BD, tokens_B in parts), strict=True)
        return joined(pieces), torch.cat(x_hat)

    def final(self, hook: str, batch: HeldOutBatch, value_ND: Tensor, where_RT: Tensor) -> Tensor:
        """The final hidden states [R, T, D] with other activations [N, d] of a hook at the positions of a mask."""
        spliced_RTd = _replaced(batch.clean.activations[hook], where_RT, value_ND)
        return self._suffix.run(hook, batch.clean, spliced_RTd)

    def codes(self, one: SplicedSae, batch: HeldOutBatch) -> Entries:
        """The codes above 0 of an SAE at the counted positions, in the order of the rows."""
        places = batch.places(one.sites)
        fired, _ = self.coded(one, batch)
        counts_N = places.counted_RT[places.replaced_RT]
        return fired if counts_N.all() else rows_where(counts_N, fired)

    def finals(self, one: SplicedSae, batch: HeldOutBatch) -> dict[str, Tensor]:
        """The final hidden states [R, T, D] with an SAE's reconstructions in place, by the hook they are put at."""
        sums = SaeSums(one.sae, len(self._heldout.tokens_RT), self._suffix.device)
        spliced = _reconstructed(one, batch, sums)
        return {hook: self._suffix.run(hook, batch.clean, value_RTd) for hook, value_RTd in spliced.items()}

    def _ablated(self, batch: HeldOutBatch, hooks: Hooks, places: Places, scale: float) -> Tensor:
        """Final hidden states [N, D] at the targets, with so many times the means of some sites in their places."""
        where_RT, activations = places.replaced_RT, batch.clean.activations
        spliced = {hook: _replaced(activations[hook], where_RT, scale * self._means[hook]) for hook in hooks}
        final_RTD, _ = self._suffix.run_together(batch.clean, spliced, where_RT)
        return final_RTD[places.target_RT]

    def _with_sae(
        self, batch: HeldOutBatch, values: Mapping[str, Tensor], places: Places, one: SplicedSae, later: LaterSites
    ) -> Tensor:
        """The same with an SAE's reconstructions in place, of which `later` is shown what they lead to."""
        final_RTD, found = self._suffix.run_together(batch.clean, values, places.replaced_RT, one.watched)
        later.update(batch.clean.activations, found, places.counted_RT)
        return final_RTD[places.target_RT]

    def _widths(self, hooks: Sequence[str]) -> dict[str, int]:
        """Of the residual stream at hooks."""
        return {hook: self.model_at(hook).facts.d_model for hook in hooks}


def _name(kind: str, hooks: Hooks) -> str:
    return f"{kind} {' + '.join(hooks)}"


def _replaced(activation_RTd: Tensor, where_RT: Tensor, value: Tensor) -> Tensor:
    """A copy of the activation with `value`, [d] or one row per position, at the positions of the mask."""
    copy = activation_RTd.clone()
    copy[where_RT] = value.to(copy.device, copy.dtype)
    return copy


def read_by(one: SplicedSae, batch: HeldOutBatch, where_RT: Tensor) -> tuple[Tensor, Tensor]:
    """What an SAE reads and what it is to reconstruct, at the positions of the mask."""
    activations = batch.clean.activations
    y_ND = torch.cat([activations[hook][where_RT] for hook in one.hooks], dim=1)
    if one.reads is None:
        return y_ND, y_ND
    return torch.cat([activations[hook][where_RT] for hook in one.inputs], dim=1), y_ND


def _reconstructed(one: SplicedSae, batch: HeldOutBatch, sums: SaeSums) -> dict[str, Tensor]:
    """Each site's activation with reconstructions in place; those of counted positions go into the sums too."""
    activations, places = batch.clean.activations, batch.places(one.sites)
    sequence_N = places.replaced_RT.nonzero()[:, 0] + batch.first
    counts_N = places.counted_RT[places.replaced_RT]
    tokens_N = batch.clean.tokens_RT[places.replaced_RT]
    x_ND, y_ND = read_by(one, batch, places.replaced_RT)
    x_hat_ND = sums.add(x_ND, tokens_N, counts_N, sequence_N, y_ND)
    parts = zip(one.hooks, x_hat_ND.chunk(len(one.hooks), dim=1), strict=True)
    return {hook: _replaced(activations[hook], places.replaced_RT, part_ND) for hook, part_ND in parts}


def _evaluation(one: SplicedSae, sums: SaeSums, later: LaterSites, losses: _Losses) -> Evaluation:
    clean, zero, _, own = losses.averages(one.label, one.passes)
    metrics = sums.metrics() | losses.metrics(one.label, one.passes) | later.metrics()
    if one.models > 1:
        for number, name in enumerate(MODELS):
            passes = [hooks for hooks in one.passes if model_of(hooks[0]) == number]
            metrics[f"ce_recovered_{name}"] = losses.metrics(one.label, passes)["ce_recovered"]
    rows = {"ce": own.ce_R, "kl": own.kl_R, "ce_clean": clean.ce_R, "ce_zero": zero.ce_R}
    return Evaluation(
        one.sae,
        {**metrics, "outlier_fraction": losses.outlier_fraction},
        sums.sparsity.frequency_F,
        {**sums.rows, "targets": losses.targets_R, **rows},
        sums.layers,
        sums.core_values,
    )
