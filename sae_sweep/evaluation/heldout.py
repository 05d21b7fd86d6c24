"""The held-out rows of a language model, batch by batch, and which of their positions count at each site."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sae_sweep.activations.finite import check_finite
from sae_sweep.activations.outliers import row_norms
from sae_sweep.data.positions import counted_positions, readable, target_positions
from sae_sweep.model.parting import Parting
from sae_sweep.model.suffix import CleanPass
from sae_sweep.model.together import Suffixes


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
    largest_norms: Mapping[str, float] = field(default_factory=dict)
    """By hook: positions whose activation is longer do not count there, as in training (`data.max_norm_ratio`)."""
    parting: Parting | None = None
    """Of rows in which attention keeps within documents."""
    core: bool = False
    """Whether what SAEBench's core evaluation has of its own is asked for."""

    def guarded(self, sites: Iterable[str]) -> tuple[str, ...]:
        """Those of an SAE's sites that leave outliers out: the same positions count for all SAEs of the same ones."""
        return tuple(sorted(hook for hook in set(sites) if hook in self.largest_norms))


@dataclass(frozen=True)
class Places:
    """Positions of some rows at a site, each [R, T] bool."""

    counted_RT: Tensor
    replaced_RT: Tensor
    target_RT: Tensor
    outliers_RT: Tensor
    """Would count, but for their norm."""


@dataclass(frozen=True)
class HeldOutBatch:
    """Some held-out rows after their clean pass."""

    clean: CleanPass
    first: int
    """The index of the batch's first row in the held-out set."""
    of: HeldOut
    common: Places
    """The positions where no site leaves outliers out."""
    outliers: Mapping[str, Tensor]
    """[R, T] bool by hook that leaves outliers out: where activations are too long."""
    _places: dict[tuple[str, ...], Places] = field(default_factory=dict, repr=False)

    def places(self, sites: Iterable[str]) -> Places:
        """The positions of an SAE that reads and reconstructs these sites."""
        names = self.of.guarded(sites)
        if names and names not in self._places:
            outliers_RT = torch.stack([self.outliers[hook] for hook in names]).any(0) & self.common.counted_RT
            counts_RT = self.common.counted_RT & ~outliers_RT
            replaced_RT = self.common.replaced_RT if self.of.every_position else counts_RT
            self._places[names] = Places(counts_RT, replaced_RT, self.common.target_RT & counts_RT, outliers_RT)
        return self._places[names] if names else self.common


@torch.no_grad()
def heldout_batches(heldout: HeldOut, suffix: Suffixes, start: int = 0) -> Iterator[HeldOutBatch]:
    """The held-out rows in their order, each batch after its clean pass, with what is too long at every hook that is
    recorded; those from the batch of that number on.

    Raises ConfigError where the model gives what is no number.
    """
    device = suffix.device
    special_ids = heldout.special_ids.to(device)
    for first in range(start * heldout.rows_per_forward, len(heldout.tokens_RT), heldout.rows_per_forward):
        tokens_RT = heldout.tokens_RT[first : first + heldout.rows_per_forward].to(device)
        counted_RT = counted_positions(tokens_RT, special_ids, heldout.bos_id, heldout.parting)
        replaced_RT = tokens_RT >= 0 if heldout.every_position else counted_RT
        targets_RT = target_positions(counted_RT, tokens_RT, special_ids)
        common = Places(counted_RT, replaced_RT, targets_RT, torch.zeros_like(counted_RT))
        clean = suffix.clean(readable(tokens_RT))
        for hook, activation_RTd in clean.activations.items():
            rows = f"held-out rows {first} to {first + len(tokens_RT) - 1}"
            check_finite(activation_RTd[replaced_RT], hook, rows)
        outliers = {
            hook: row_norms(clean.activations[hook].flatten(0, 1)).view_as(counted_RT) > largest
            for hook, largest in heldout.largest_norms.items()
            if hook in clean.activations
        }
        yield HeldOutBatch(clean, first, heldout, common, outliers)
