"""Evaluating members on held-out tokens of a language model.

What a sweep shares is computed once, and what a member adds is one suffix pass.

For each batch of held-out rows there is one clean pass, one zero and one mean ablation per site (suffix passes all),
and one spliced suffix pass per member. Only counted positions are replaced (`evaluation.positions=counted`), and
averages run over counted positions whose target is not special. A crosscoder is spliced at each of its sites in turn,
as are the ablations it is measured by, and its numbers are averages over them: all at once, the last site of a residual
stream would be all that counts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sae_sweep.activations.finite import check_finite
from sae_sweep.data.positions import counted_positions, readable, target_positions
from sae_sweep.evaluation.evaluator import Evaluation, SplicedSae
from sae_sweep.evaluation.later import LaterSites
from sae_sweep.evaluation.splice import PassLosses, accumulate, average, splice_metrics
from sae_sweep.evaluation.sums import SaeSums
from sae_sweep.host.cores import side_by_side, workers
from sae_sweep.kernels.entries import Entries
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.suffix import CleanPass, Suffix


@dataclass(frozen=True)
class HeldOut:
    """The tokens every member of a group is evaluated on, and how."""

    tokens_RT: Tensor
    """[R, T] int64."""
    special_ids: Tensor
    bos_id: int | None
    rows_per_forward: int
    every_position: bool
    """Splice and ablate every position, not only the counted ones."""


@dataclass(frozen=True)
class HeldOutBatch:
    """Some held-out rows after their clean pass."""

    clean: CleanPass
    first: int
    """The index of the batch's first row in the held-out set."""
    counted_RT: Tensor
    replaced_RT: Tensor
    target_RT: Tensor


class LanguageModelEvaluator:
    """Evaluates any number of SAEs at the given sites, on the same tokens each time."""

    def __init__(self, model: LanguageModel, heldout: HeldOut, means: Mapping[str, Tensor], read: Sequence[str] = ()):
        """`means` are the mean activations [d] by hook, which mean ablation puts in place; `read` are hooks that
        SAEs read or watch, if not only those."""
        self._model, self._heldout, self._means, self._read = model, heldout, means, read
        self._suffix = Suffix(model, tuple(means), read)

    @torch.no_grad()
    def evaluate(
        self, saes: Sequence[SplicedSae], done: Callable[[float], None] = lambda share: None
    ) -> dict[str, Evaluation]:
        """Metrics of every SAE, by label; `done` is told the share of held-out rows that have been read."""
        sequences, device = len(self._heldout.tokens_RT), self._model.device
        hooks = sorted({hook for one in saes for hook in one.hooks})
        ablations = [_name(kind, hook) for hook in hooks for kind in ("zero", "mean")]
        names = ["clean", *ablations, *(_name(one.label, hook) for one in saes for hook in one.hooks)]
        losses = {name: PassLosses(sequences, device) for name in names}
        sums = {one.label: SaeSums(one.sae, sequences, device) for one in saes}
        later = {one.label: LaterSites(one.watched, self._model.facts.d_model, device) for one in saes}
        targets_R = torch.zeros(sequences, dtype=torch.float64, device=device)
        for batch in self.batches():
            finals = self._ablated(batch, hooks)
            for one, spliced in zip(saes, self._spliced(saes, batch, sums), strict=True):
                for hook, activation_RTd in spliced.items():
                    final_RTD, found = self._suffix.run_watching(hook, batch.clean, activation_RTd, one.watched)
                    later[one.label].update(batch.clean.activations, found, batch.counted_RT)
                    finals[_name(one.label, hook)] = final_RTD[batch.target_RT]
            row_N, position_N = batch.target_RT.nonzero(as_tuple=True)
            next_N = batch.clean.tokens_RT[row_N, position_N + 1]
            clean_ND = batch.clean.final_RTD[batch.target_RT]
            accumulate(self._model, clean_ND, finals, next_N, row_N + batch.first, losses)
            targets_R.index_add_(0, row_N + batch.first, torch.ones_like(row_N, dtype=torch.float64))
            done((batch.first + len(batch.counted_RT)) / sequences)
        return {one.label: _evaluation(one, sums[one.label], later[one.label], losses, targets_R) for one in saes}

    def _spliced(
        self, saes: Sequence[SplicedSae], batch: HeldOutBatch, sums: Mapping[str, SaeSums]
    ) -> Iterator[dict[str, Tensor]]:
        """Each SAE's activations, by hook, with reconstructions in place; side by side where it pays."""
        device, count = self._model.device, workers(self._model.device, len(saes))
        for first in range(0, len(saes), count):
            some = saes[first : first + count]
            yield from side_by_side(lambda one: _reconstructed(one, batch, sums[one.label]), some, device)

    def in_smaller_batches(self) -> "LanguageModelEvaluator | None":
        """The same evaluator, with half as many rows in a forward pass; None where it is one."""
        rows = self._heldout.rows_per_forward
        if rows == 1:
            return None
        return LanguageModelEvaluator(
            self._model, replace(self._heldout, rows_per_forward=rows // 2), self._means, self._read
        )

    @torch.no_grad()
    def batches(self) -> Iterator[HeldOutBatch]:
        """The held-out rows in their order, each batch after its clean pass. Raises ConfigError where the model gives
        what is no number."""
        heldout, device = self._heldout, self._model.device
        special_ids = heldout.special_ids.to(device)
        for first in range(0, len(heldout.tokens_RT), heldout.rows_per_forward):
            tokens_RT = heldout.tokens_RT[first : first + heldout.rows_per_forward].to(device)
            counted_RT = counted_positions(tokens_RT, special_ids, heldout.bos_id)
            replaced_RT = tokens_RT >= 0 if heldout.every_position else counted_RT
            target_RT = target_positions(counted_RT, tokens_RT, special_ids)
            clean = self._suffix.clean(readable(tokens_RT))
            for hook, activation_RTd in clean.activations.items():
                check_finite(
                    activation_RTd[replaced_RT], hook, f"held-out rows {first} to {first + len(tokens_RT) - 1}"
                )
            yield HeldOutBatch(clean, first, counted_RT, replaced_RT, target_RT)

    def codes(self, one: SplicedSae, batch: HeldOutBatch) -> Entries:
        """The codes above 0 of an SAE at the counted positions, in the order of the rows."""
        x_ND, _ = _read(one, batch, batch.counted_RT)
        return one.sae.coded(x_ND.to(one.sae.tensors["W_enc"].dtype), batch.clean.tokens_RT[batch.counted_RT])[0]

    def finals(self, one: SplicedSae, batch: HeldOutBatch) -> dict[str, Tensor]:
        """The final hidden states [R, T, D] with an SAE's reconstructions in place, by the hook they are put at."""
        sums = SaeSums(one.sae, len(self._heldout.tokens_RT), self._model.device)
        spliced = _reconstructed(one, batch, sums)
        return {hook: self._suffix.run(hook, batch.clean, value_RTd) for hook, value_RTd in spliced.items()}

    def _ablated(self, batch: HeldOutBatch, hooks: Sequence[str]) -> dict[str, Tensor]:
        """Final hidden states at the targets with each site's activation zeroed, and at its mean."""
        finals = {}
        for hook in hooks:
            mean_D = self._means[hook]
            for kind, value_D in (("zero", torch.zeros_like(mean_D)), ("mean", mean_D)):
                spliced = _replaced(batch.clean.activations[hook], batch.replaced_RT, value_D)
                finals[_name(kind, hook)] = self._suffix.run(hook, batch.clean, spliced)[batch.target_RT]
        return finals


def _name(kind: str, hook: str) -> str:
    return f"{kind} {hook}"


def _replaced(activation_RTd: Tensor, where_RT: Tensor, value: Tensor) -> Tensor:
    """A copy of the activation with `value`, [d] or one row per position, at the positions of the mask."""
    copy = activation_RTd.clone()
    copy[where_RT] = value.to(copy.device, copy.dtype)
    return copy


def _read(one: SplicedSae, batch: HeldOutBatch, where_RT: Tensor) -> tuple[Tensor, Tensor]:
    """What an SAE reads and what it is to reconstruct, at the positions of the mask."""
    activations = batch.clean.activations
    y_ND = torch.cat([activations[hook][where_RT] for hook in one.hooks], dim=1)
    return (y_ND if one.reads is None else activations[one.reads][where_RT]), y_ND


def _reconstructed(one: SplicedSae, batch: HeldOutBatch, sums: SaeSums) -> dict[str, Tensor]:
    """Each site's activation with reconstructions in place; those of counted positions go into the sums too."""
    activations = batch.clean.activations
    sequence_N = batch.replaced_RT.nonzero()[:, 0] + batch.first
    counts_N = batch.counted_RT[batch.replaced_RT]
    tokens_N = batch.clean.tokens_RT[batch.replaced_RT]
    x_ND, y_ND = _read(one, batch, batch.replaced_RT)
    x_hat_ND = sums.add(x_ND, tokens_N, counts_N, sequence_N, y_ND)
    parts = zip(one.hooks, x_hat_ND.chunk(len(one.hooks), dim=1), strict=True)
    return {hook: _replaced(activations[hook], batch.replaced_RT, part_ND) for hook, part_ND in parts}


def _evaluation(
    one: SplicedSae, sums: SaeSums, later: LaterSites, losses: Mapping[str, PassLosses], targets_R: Tensor
) -> Evaluation:
    zero, mean, own = (
        average([losses[_name(kind, hook)] for hook in one.hooks]) for kind in ("zero", "mean", one.label)
    )
    metrics = sums.metrics() | splice_metrics(losses["clean"], zero, mean, own, targets_R) | later.metrics()
    return Evaluation(one.sae, metrics, sums.sparsity.frequency_F)
