"""The held-out rows of a language model, batch by batch, and which of their positions count at each site."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sae_sweep.activations.finite import check_finite
from sae_sweep.activations.stream import row_norms
from sae_sweep.data.positions import counted_positions, readable, target_positions
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
    largest_norms: Mapping[str, float] = field(default_factory=dict)
    """By hook: positions whose activation is longer do not count there, as in training (`data.max_norm_ratio`)."""


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
    places: Mapping[str, Places]
    """By hook; one for all where no site leaves outliers out."""


@torch.no_grad()
def heldout_batches(heldout: HeldOut, suffix: Suffix, start: int = 0) -> Iterator[HeldOutBatch]:
    """The held-out rows in their order, each batch after its clean pass, with positions at every hook that is recorded;
    those from the batch of that number on.

    Raises ConfigError where the model gives what is no number.
    """
    device = suffix.model.device
    special_ids = heldout.special_ids.to(device)
    for first in range(start * heldout.rows_per_forward, len(heldout.tokens_RT), heldout.rows_per_forward):
        tokens_RT = heldout.tokens_RT[first : first + heldout.rows_per_forward].to(device)
        counted_RT = counted_positions(tokens_RT, special_ids, heldout.bos_id)

        def places(outliers_RT: Tensor, tokens_RT: Tensor = tokens_RT, counted_RT: Tensor = counted_RT) -> Places:
            counts_RT = counted_RT & ~outliers_RT
            replaced_RT = tokens_RT >= 0 if heldout.every_position else counts_RT
            targets_RT = target_positions(counts_RT, tokens_RT, special_ids)
            return Places(counts_RT, replaced_RT, targets_RT, outliers_RT & counted_RT)

        clean = suffix.clean(readable(tokens_RT))
        common = places(torch.zeros_like(counted_RT))
        for hook, activation_RTd in clean.activations.items():
            rows = f"held-out rows {first} to {first + len(tokens_RT) - 1}"
            check_finite(activation_RTd[common.replaced_RT], hook, rows)
        own = {
            hook: places(row_norms(clean.activations[hook].flatten(0, 1)).view_as(counted_RT) > largest)
            for hook, largest in heldout.largest_norms.items()
            if hook in clean.activations
        }
        yield HeldOutBatch(clean, first, {hook: own.get(hook, common) for hook in clean.activations})


def alike(heldout: HeldOut, hooks: Sequence[str]) -> list[list[str]]:
    """The hooks in groups at which the same positions count: all of them, where none leaves outliers out."""
    apart = [[hook] for hook in hooks if hook in heldout.largest_norms]
    rest = [hook for hook in hooks if hook not in heldout.largest_norms]
    return ([rest] if rest else []) + apart
