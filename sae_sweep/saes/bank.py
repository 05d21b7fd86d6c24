"""A bank: the parameters of members that step together, end to end in one storage per name.

A member is a view of it: that is what the optimizer, clipping, resampling and saving use, so company changes
nothing for a member. A *chunk* is a run of neighbouring members whose losses are computed together, with one
encoder product. A lookup table (tokenized SAE) is the bank's business alone: it moves the target that the
architecture reconstructs, and where asked for its input. So is a transcoder's linear skip (Paulo et al. 2025, arXiv
2501.18823): what is left for the architecture is y - W_skip x.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.kernels.entries import Room
from sae_sweep.kernels.rows import RowSums, Scaled
from sae_sweep.saes.base import Before, Clock, Losses, Objective, Parameters, SaeMaths, SquaredError, Step
from sae_sweep.saes.cross_layer import cross_layer
from sae_sweep.saes.inference import InferenceSae, Lookup, Units
from sae_sweep.saes.layout import Layout, layout_of
from sae_sweep.saes.spaces import AUTOENCODER, Spaces

LOOKUP = "lookup"
"""The name of the table [M, V, D]: a parameter where it is learned, a buffer where it is frozen."""
SKIP = "W_skip"
"""The name of the skips [M, D of the output, D of the input]."""
Gradients = dict[str, Tensor | RowSums]
"""Of one member, by name of the parameter; those of its two large weights may be sums that are not made."""
PER_MEMBER = frozenset({"b_dec", LOOKUP, SKIP})
"""Parameters with one row per member; all others have one per latent."""
Write: TypeAlias = Callable[[], object]
"""A change that a step has prepared: it takes no memory. One that fails has changed nothing, and may be done again."""


@dataclass(frozen=True)
class Batch:
    """B tokens' inputs to a step."""

    x_BD: Tensor
    tokens_B: Tensor
    """Their ids; a lookup table's rows."""
    y_BD: Tensor | None = None
    """What is to be reconstructed; None is x."""
    objective: Objective = field(default_factory=SquaredError)
    before: Before | None = None
    """The tokens before them, for members that are trained on pairs."""
    scaled: Scaled | None = None
    """The inputs once more, on a GPU and where they are numbers of 16 bits times another."""

    @property
    def target_BD(self) -> Tensor:
        """What is reconstructed: the inputs, but for transcoders."""
        return self.x_BD if self.y_BD is None else self.y_BD


@dataclass(frozen=True)
class Chunk:
    """Members first..last-1 of a bank."""

    first: int
    last: int
    dense: bool
    room: Room | None = None
    """For the lists of the sparse route, on a device that is not to be waited for."""
    most_dead: tuple[int, ...] | None = None
    """As many latents as can be dead in each member, where that is known without asking the device."""

    @property
    def members(self) -> slice:
        """The indices of its members in the bank."""
        return slice(self.first, self.last)


class Bank:
    """M members of one structure at one site: `storage[name]` is [F, ...], or [M, ...] for what each has one of."""

    def __init__(
        self,
        maths: SaeMaths,
        configs: Sequence[SaeConfig],
        initial: Sequence[Parameters],
        buffers: Sequence[Mapping[str, Tensor]] = (),
        spaces: Spaces = AUTOENCODER,
    ):
        """`initial` and `buffers` hold each member's first ones, on the device and in the dtype they will keep."""
        self.maths = maths
        self.configs = tuple(configs)
        self.spaces = spaces
        device = initial[0]["W_enc"].device
        self.layout: Layout = layout_of(tuple(len(p["W_enc"]) for p in initial), device)
        self.storage: Parameters = {
            name: torch.stack([p[name] for p in initial])
            if name in PER_MEMBER
            else torch.cat([p[name] for p in initial])
            for name in initial[0]
        }
        self.buffers: Parameters = {name: torch.stack([b[name] for b in buffers]) for name in (buffers or [{}])[0]}
        """[M, ...] by name."""

    def latents(self, first: int, last: int) -> slice:
        """The latents of members first..last-1."""
        return slice(self.layout.slices[first].start, self.layout.slices[last - 1].stop)

    def views(self, tensors: Parameters, first: int, last: int) -> Parameters:
        """The part of storage-shaped tensors that belongs to members first..last-1."""
        own = slice(first, last), self.latents(first, last)
        return {name: self._own(name, t, *own) for name, t in tensors.items()}

    def _own(self, name: str, tensor: Tensor, members: slice, latents: slice) -> Tensor:
        """The part of a tensor that belongs to some members, given their latents."""
        if name in PER_MEMBER:
            return tensor[members]
        if name == "W_dec":
            latents = slice(*map(self.spaces.decoder_rows, (latents.start, latents.stop)))
        return tensor[latents]

    def member(self, tensors: Parameters, member: int) -> Parameters:
        """One member's part of storage-shaped tensors; b_dec is [D]."""
        views = self.views(tensors, member, member + 1)
        return {name: t[0] if name in PER_MEMBER else t for name, t in views.items()}

    def rows(self, own: Parameters, latents_K: Tensor, names: Iterable[str]) -> list[tuple[Tensor, Tensor]]:
        """Of one member's tensors those of these names, each with its rows that are the latents'; W_dec by table."""
        found: list[tuple[Tensor, Tensor]] = []
        for name in names:
            if name == "W_dec":
                tables, width = self.spaces.tables(own[name]), len(own["W_enc"])
                found += zip(tables, self.spaces.in_tables(latents_K, width), strict=True)
            else:
                found.append((own[name], latents_K))
        return found

    def gradients(
        self,
        batch: Batch,
        chunk: Chunk,
        coefficient_M: Tensor,
        dead_F: Tensor,
        variance: float,
        clocks: Sequence[Clock],
    ) -> tuple[Losses, list[Gradients]]:
        """Losses of a chunk's members, and each one's gradients shaped as its parameters. Nothing changes yet.

        `coefficient_M`, `dead_F` and `clocks` are the chunk's own.
        """
        # `data`, not `detach()`: other members' updates, of other rows of the same storage, are none of autograd's.
        leaves = {
            name: t.data.requires_grad_() for name, t in self.views(self.storage, chunk.first, chunk.last).items()
        }
        layout = layout_of(self.layout.widths[chunk.members], self.layout.device)
        buffers = {name: t[chunk.members] for name, t in self.buffers.items()}
        own = (self.configs[chunk.members], layout, chunk.dense, dead_F, variance, tuple(clocks), buffers)
        room = chunk.room
        step = Step(*own, self.spaces, batch.objective, batch.before, room, chunk.most_dead)
        if room is not None:
            room.inputs = batch.scaled
        x_BD, target_BMD = self._inputs(batch, leaves, buffers)
        losses = self.maths.losses(leaves, x_BD, target_BMD, step)
        losses = replace(losses, squared_M=batch.objective.squared_M)
        if losses.auxiliary_M is not None:
            losses = replace(losses, auxiliary_M=batch.objective.worth * losses.auxiliary_M)
        flat = torch.autograd.grad(
            losses.total(coefficient_M).sum(), list(leaves.values()), allow_unused=room is not None
        )
        return losses, self._of_each(layout, dict(zip(leaves, flat, strict=True)), {} if room is None else room.rows)

    def move(self, chunk: Chunk, losses: Losses, lost: Tensor | None) -> list[Write]:
        """What moves the buffers of a chunk's members on, given their losses; nothing where the step is `lost`."""
        writes: list[Write] = []
        for name, changed in losses.buffers.items():
            own = self.buffers[name][chunk.members]
            writes.append(partial(own.copy_, changed if lost is None else torch.where(lost, own, changed)))
        return writes

    def _of_each(
        self, layout: Layout, named: Mapping[str, Tensor | None], sums: Mapping[str, RowSums]
    ) -> list[Gradients]:
        """Each member's part of the gradients of a chunk."""
        return [
            {
                **{
                    name: g[i] if name in PER_MEMBER else self._own(name, g, slice(i, i + 1), rows)
                    for name, g in named.items()
                    if g is not None
                },
                **{name: one.of(i, rows, named[name]) for name, one in sums.items()},
            }
            for i, rows in enumerate(layout.slices)
        ]

    def _inputs(self, batch: Batch, parameters: Parameters, buffers: Parameters) -> tuple[Tensor, Tensor]:
        """What the encoders see, and what the decoders are to give: [B, M or 1, D]."""
        if SKIP in parameters:
            return batch.x_BD, batch.target_BD[:, None] - (batch.x_BD @ parameters[SKIP].mT).transpose(0, 1)
        table_MVD = parameters.get(LOOKUP, buffers.get(LOOKUP))
        if table_MVD is None:
            return batch.x_BD, batch.target_BD[:, None]
        target_BMD = batch.x_BD[:, None] - table_MVD.index_select(1, batch.tokens_B).transpose(0, 1)
        if not self.takes_lookup_from_input:
            return batch.x_BD, target_BMD
        assert target_BMD.shape[1] == 1, "members that see different inputs step alone"
        return target_BMD[:, 0], target_BMD

    @property
    def takes_lookup_from_input(self) -> bool:
        """Whether each member's encoder sees inputs of its own."""
        return self.configs[0].lookup_subtract

    @property
    def steps_alone(self) -> bool:
        """Whether members share no step: they see inputs of their own, or their latents do not all read the same."""
        return self.takes_lookup_from_input or self.spaces.layers > 1

    def fold(self, member: int, scale: float, mean_D: Tensor | None = None, reads: Units | None = None) -> InferenceSae:
        """One member as it is used and saved: for raw activations x, given that it trains on scale (x - mean).

        Of a transcoder, scale and mean are those of its targets; `reads` are those of its inputs. A cross-layer one is
        for what it trains on.
        """
        parameters = self.member(self.storage, member)
        buffers = {name: t[member] for name, t in self.buffers.items()}
        table_VD = parameters.get(LOOKUP, buffers.get(LOOKUP))
        fold = partial(self.maths.fold, self.configs[member], buffers=buffers, scale=scale)
        if self.spaces.layers > 1:
            return cross_layer(fold, parameters, self.spaces)
        sae = fold(parameters)
        if not self.spaces.pre_bias:
            sae = replace(sae, subtract_b_dec=False, sites=self.spaces.sites)
        if not self.spaces.same:
            skip = {SKIP: parameters[SKIP].clone()} if SKIP in parameters else {}
            sae = replace(sae, tensors={**sae.tensors, **skip}, transcodes=True)
            reads = reads or Units()
            sae = sae.reading(reads.scale / scale, reads.mean_D)  # b_enc is in the unit of the targets already
            return sae if mean_D is None else sae.giving_about(mean_D)
        if table_VD is not None:
            sae = replace(sae, lookup=Lookup(table_VD / scale, self.configs[member].lookup_subtract))
        return sae if mean_D is None else sae.about(mean_D)
