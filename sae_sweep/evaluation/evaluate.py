"""Judging members on held-out tokens: what a sweep shares is computed once, what a member adds is one suffix pass.

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
from sae_sweep.data.positions import counted_positions, target_positions
from sae_sweep.evaluation.later import LaterSites
from sae_sweep.evaluation.reconstruction import Reconstruction
from sae_sweep.evaluation.sparsity import Sparsity
from sae_sweep.evaluation.splice import Divergence, accumulate, average, splice_metrics
from sae_sweep.host.cores import side_by_side, workers
from sae_sweep.kernels.entries import rows_where
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.suffix import CleanPass, Suffix
from sae_sweep.saes.inference import InferenceSae

CODE_ELEMENTS = {"cpu": 2**20, "cuda": 2**24}
"""Codes held at a time, tokens x latents. A CPU goes over them faster while they stay in cache."""


@dataclass(frozen=True)
class HeldOut:
    """The tokens every member of a group is judged on, and how."""

    tokens_RT: Tensor
    """[R, T] int64."""
    special_ids: Tensor
    bos_id: int | None
    rows_per_forward: int
    every_position: bool
    """Splice and ablate every position, not only the counted ones."""


@dataclass(frozen=True)
class Candidate:
    """An SAE to judge, at the site where its reconstructions are spliced in."""

    label: str
    hook: str
    sae: InferenceSae
    steps: int = 0
    """Training steps it has taken."""
    batch_size: int = 1
    """Rows of each."""
    reads: str | None = None
    """The hook that it reads; None is `hook`."""
    beside: tuple[str, ...] = ()
    """A crosscoder's other hooks, read and spliced as `hook` is."""
    watched: tuple[str, ...] = ()
    """Hooks after all these, where the spliced model's activations are compared with clean ones."""

    @property
    def hooks(self) -> tuple[str, ...]:
        """Where it is spliced, in one pass each."""
        return (self.hook, *self.beside)


@dataclass(frozen=True)
class Judgement:
    """One candidate's metrics, and the share of counted tokens each latent fires on."""

    sae: InferenceSae
    metrics: dict[str, float | None]
    frequency_F: Tensor


@dataclass(frozen=True)
class _Batch:
    """Some held-out rows after their clean pass."""

    clean: CleanPass
    first: int
    """The index of the batch's first row in the held-out set."""
    counted_RT: Tensor
    replaced_RT: Tensor
    target_RT: Tensor


class Sums:
    """What is accumulated of one candidate's codes and reconstructions, over R held-out sequences."""

    def __init__(self, sae: InferenceSae, sequences: int, device: torch.device):
        self._sae = sae
        self.reconstruction = Reconstruction(sae.d_out, device)
        self.sparsity = Sparsity(sae.width, sae.decoder_norms, sequences, device)

    def add(
        self, x_ND: Tensor, tokens_N: Tensor, counts_N: Tensor, sequence_N: Tensor, y_ND: Tensor | None = None
    ) -> Tensor:
        """The reconstructions [N, D] of N activations, or from them of y; those that count go into the sums."""
        x_ND = x_ND.to(self._sae.tensors["W_enc"].dtype)
        y_ND = x_ND if y_ND is None else y_ND.to(x_ND.dtype)
        x_hat_ND = torch.empty_like(y_ND)
        step = max(1, CODE_ELEMENTS[x_ND.device.type] // self._sae.width)
        for start in range(0, len(x_ND), step):
            part = slice(start, start + step)
            x_BD, y_BD, tokens_B, counts_B = x_ND[part], y_ND[part], tokens_N[part], counts_N[part]
            fired, x_hat_BD = self._sae.coded(x_BD, tokens_B)
            x_hat_ND[part] = x_hat_BD
            if not counts_B.all():
                fired, y_BD, x_hat_BD = rows_where(counts_B, fired), y_BD[counts_B], x_hat_BD[counts_B]
            self.reconstruction.update(y_BD, x_hat_BD)
            self.sparsity.update(fired, sequence_N[part][counts_B])
        return x_hat_ND

    def metrics(self) -> dict[str, float | None]:
        return {
            **self.sparsity.metrics(),
            **self.reconstruction.metrics(),
            "tokens_evaluated": self.sparsity.tokens,
        }


class Evaluator:
    """Judges any number of candidates at the given sites, on the same tokens each time."""

    def __init__(self, model: LanguageModel, heldout: HeldOut, means: Mapping[str, Tensor], read: Sequence[str] = ()):
        """`means` are the mean activations [d] by hook, which mean ablation puts in place; `read` are hooks that
        candidates read or watch, if not only those."""
        self._model, self._heldout, self._means, self._read = model, heldout, means, read
        self._suffix = Suffix(model, tuple(means), read)

    @torch.no_grad()
    def judge(
        self, candidates: Sequence[Candidate], done: Callable[[float], None] = lambda share: None
    ) -> dict[str, Judgement]:
        """Metrics of every candidate, by label; `done` is told the share of held-out rows that have been read."""
        sequences, device = len(self._heldout.tokens_RT), self._model.device
        hooks = sorted({hook for candidate in candidates for hook in candidate.hooks})
        ablations = [_name(kind, hook) for hook in hooks for kind in ("zero", "mean")]
        names = ["clean", *ablations, *(_name(c.label, hook) for c in candidates for hook in c.hooks)]
        divergences = {name: Divergence(sequences, device) for name in names}
        sums = {c.label: Sums(c.sae, sequences, device) for c in candidates}
        later = {c.label: LaterSites(c.watched, self._model.facts.d_model, device) for c in candidates}
        targets_R = torch.zeros(sequences, dtype=torch.float64, device=device)
        for batch in self._batches():
            finals = self._ablated(batch, hooks)
            for c, spliced in zip(candidates, self._spliced(candidates, batch, sums), strict=True):
                for hook, activation_RTd in spliced.items():
                    final_RTD, found = self._suffix.run_watching(hook, batch.clean, activation_RTd, c.watched)
                    later[c.label].update(batch.clean.activations, found, batch.counted_RT)
                    finals[_name(c.label, hook)] = final_RTD[batch.target_RT]
            row_N, position_N = batch.target_RT.nonzero(as_tuple=True)
            next_N = batch.clean.tokens_RT[row_N, position_N + 1]
            clean_ND = batch.clean.final_RTD[batch.target_RT]
            accumulate(self._model, clean_ND, finals, next_N, row_N + batch.first, divergences)
            targets_R.index_add_(0, row_N + batch.first, torch.ones_like(row_N, dtype=torch.float64))
            done((batch.first + len(batch.counted_RT)) / sequences)
        return {c.label: _judgement(c, sums[c.label], later[c.label], divergences, targets_R) for c in candidates}

    def _spliced(
        self, candidates: Sequence[Candidate], batch: _Batch, sums: Mapping[str, Sums]
    ) -> Iterator[dict[str, Tensor]]:
        """Each candidate's activations, by hook, with reconstructions in place; side by side where it pays."""
        device, count = self._model.device, workers(self._model.device, len(candidates))
        for first in range(0, len(candidates), count):
            some = candidates[first : first + count]
            yield from side_by_side(lambda c: _reconstructed(c, batch, sums[c.label]), some, device)

    def in_smaller_batches(self) -> "Evaluator | None":
        """The same judge, with half as many rows in a forward pass; None where it is one."""
        rows = self._heldout.rows_per_forward
        if rows == 1:
            return None
        return Evaluator(self._model, replace(self._heldout, rows_per_forward=rows // 2), self._means, self._read)

    def _batches(self) -> Iterator[_Batch]:
        heldout, device = self._heldout, self._model.device
        special_ids = heldout.special_ids.to(device)
        for first in range(0, len(heldout.tokens_RT), heldout.rows_per_forward):
            tokens_RT = heldout.tokens_RT[first : first + heldout.rows_per_forward].to(device)
            counted_RT = counted_positions(tokens_RT, special_ids, heldout.bos_id)
            replaced_RT = torch.ones_like(counted_RT) if heldout.every_position else counted_RT
            target_RT = target_positions(counted_RT, tokens_RT, special_ids)
            clean = self._suffix.clean(tokens_RT)
            for hook, activation_RTd in clean.activations.items():
                check_finite(
                    activation_RTd[replaced_RT], hook, f"held-out rows {first} to {first + len(tokens_RT) - 1}"
                )
            yield _Batch(clean, first, counted_RT, replaced_RT, target_RT)

    def _ablated(self, batch: _Batch, hooks: Sequence[str]) -> dict[str, Tensor]:
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


def _reconstructed(candidate: Candidate, batch: _Batch, sums: Sums) -> dict[str, Tensor]:
    """Each site's activation with reconstructions in place; those of counted positions go into the sums too."""
    activations = batch.clean.activations
    sequence_N = batch.replaced_RT.nonzero()[:, 0] + batch.first
    counts_N = batch.counted_RT[batch.replaced_RT]
    tokens_N = batch.clean.tokens_RT[batch.replaced_RT]
    y_ND = torch.cat([activations[hook][batch.replaced_RT] for hook in candidate.hooks], dim=1)
    x_ND = y_ND if candidate.reads is None else activations[candidate.reads][batch.replaced_RT]
    x_hat_ND = sums.add(x_ND, tokens_N, counts_N, sequence_N, y_ND)
    parts = zip(candidate.hooks, x_hat_ND.chunk(len(candidate.hooks), dim=1), strict=True)
    return {hook: _replaced(activations[hook], batch.replaced_RT, part_ND) for hook, part_ND in parts}


def _judgement(
    candidate: Candidate, sums: Sums, later: LaterSites, divergences: Mapping[str, Divergence], targets_R: Tensor
) -> Judgement:
    zero, mean, own = (
        average([divergences[_name(kind, hook)] for hook in candidate.hooks])
        for kind in ("zero", "mean", candidate.label)
    )
    metrics = sums.metrics() | splice_metrics(divergences["clean"], zero, mean, own, targets_R) | later.metrics()
    return Judgement(candidate.sae, metrics, sums.sparsity.frequency_F)
