"""What the members of a bank read and reconstruct: a block's activations, centred and scaled as they ask."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.activations.scaling import SiteStatistics, input_scale, joined
from sae_sweep.activations.whitening import Whitening, whitened, whitening
from sae_sweep.kernels.device import on_triton
from sae_sweep.kernels.rows import Scaled
from sae_sweep.plan.members import Member
from sae_sweep.saes.bank import Bank, Batch
from sae_sweep.saes.base import Before
from sae_sweep.saes.cross_layer import CrossLayerSae
from sae_sweep.saes.inference import InferenceSae, Units
from sae_sweep.saes.initial import Start
from sae_sweep.saes.spaces import Spaces
from sae_sweep.training.step.calibration import Calibration


class Inputs:
    """The way from raw activations to a batch, and from a trained member back to raw activations."""

    def __init__(self, first: Member, calibration: Calibration) -> None:
        """`first` stands for its bank."""
        self._site, self._device, self._dtype = first.site, calibration.device, calibration.dtype
        self._pairs = first.config.sae.pairs
        sites, targets = calibration.sites, calibration.targets
        kind = first.config.sae.input_scale
        self._whitenings = None
        if first.config.sae.whitens:
            read = whitening(sites[0])
            self._whitenings = read, whitening(targets[0]) if targets else read
        self.scales = [input_scale(kind, first.d // len(sites), site) for site in sites]
        """Of the sites that are read."""
        self.spaces = Spaces(same=not targets, sites=1 if targets else len(sites), layers=max(1, len(targets)))
        self.units = self._units_of(self.scales, sites, 0)
        written = targets or sites
        self._written_scales = [input_scale(kind, first.d_out // len(written), site) for site in written]
        self._target_units = self._units_of(self._written_scales, written, 1)
        self.target_scale = 1.0 if len(sites) > 1 else self._written_scales[0]

    def measured(self, calibration: Calibration) -> tuple[SiteStatistics, SiteStatistics]:
        """The statistics of what is read and of what is reconstructed; where there are several sites they are of scaled
        activations, those of members that whiten are of whitened ones."""
        sites, targets = calibration.sites, calibration.targets
        if self._whitenings is not None:
            of_read, of_written = self._whitenings
            read = whitened(sites[0], of_read)
            return read, whitened(targets[0], of_written) if targets else read
        if len(sites) == 1:
            return sites[0], (targets or sites)[0]
        read = joined(sites, self.scales)
        return read, joined(targets, self._written_scales) if targets else read

    def start(self, read: SiteStatistics, written: SiteStatistics) -> Start:
        """What members begin from, given what `measured` says."""

        def seen(raw_ND: Tensor, units: Units) -> Tensor:
            ready = len(self.scales) > 1 or self._whitenings is not None
            return (raw_ND if ready else self.scaled(raw_ND, units)).float().cpu()

        outputs_ND = None if self.spaces.same else seen(written.sample, self._target_units)
        mean_D = seen(written.mean, self._target_units)
        return Start(seen(read.sample, self.units), mean_D, self.spaces, outputs_ND)

    @property
    def hooks(self) -> tuple[str, ...]:
        """Where members read and what they reconstruct: what is too long at one of them counts at none."""
        return self._site.hooks

    def raw(self, block: Block, rows: slice) -> tuple[Tensor, Tensor]:
        """What members read, in raw units, several sites end to end; and its tokens."""
        found, tokens_B = block.take(self.hooks, rows)
        return _end_to_end(found, self._site.reads), tokens_B

    def scaled(self, x_BD: Tensor, units: Units | None = None) -> Tensor:
        """Raw activations as the members see them, those that they read unless `units` are others."""
        return (units or self.units).applied(x_BD.to(self._device, self._dtype))

    def batch(self, block: Block, rows: slice) -> Batch:
        """Activations in the block's order."""
        found, tokens_B = block.take(self.hooks, rows)
        raw_BD = _end_to_end(found, self._site.reads)
        scaled, before = self._as_scaled(raw_BD), None
        x_BD = self.scaled(raw_BD) if scaled is None else scaled.whole_BD
        if self._pairs:
            others, there_B = block.take_before(self.hooks, rows)
            before = Before(self.scaled(_end_to_end(others, self._site.reads)), there_B)
        if self.spaces.same:
            return Batch(x_BD, tokens_B, before=before, scaled=scaled)
        y_BD = self.scaled(_end_to_end(found, self._site.writes), self._target_units)
        return Batch(x_BD, tokens_B, y_BD, before=before, scaled=scaled)

    def _as_scaled(self, raw_BD: Tensor) -> Scaled | None:
        """What is read, where a kernel reads it as it is: 16-bit numbers that only a number is multiplied with."""
        units, raw_BD = self.units, raw_BD.to(self._device)
        plain = units.mean_D is None and units.matrix_DD is None and isinstance(units.scale, float)
        if not plain or raw_BD.itemsize != 2 or not on_triton(raw_BD):
            return None
        assert isinstance(units.scale, float)
        return Scaled(raw_BD * self._factor, raw_BD, units.scale)  # converted on the way, without a pass of its own

    @cached_property
    def _factor(self) -> Tensor:
        assert isinstance(self.units.scale, float)
        return torch.full((1,), self.units.scale, dtype=self._dtype, device=self._device)

    def folded(self, bank: Bank, index: int) -> InferenceSae:
        """A member for raw activations."""
        if self.spaces.layers > 1:
            sae = bank.fold(index, 1.0)
            assert isinstance(sae, CrossLayerSae)
            means = self.units.mean_D, self._target_units.mean_D
            return sae.in_raw_units(self.scales, means[0], self._written_scales, means[1])
        if self.spaces.sites > 1:
            assert isinstance(self.units.scale, Tensor)
            sae = bank.fold(index, 1.0).scaled(self.units.scale)
            return sae if self.units.mean_D is None else sae.about(self.units.mean_D)
        if self._whitenings is not None:
            return self._dewhitened(bank.fold(index, 1.0), *self._whitenings)
        return bank.fold(index, self.target_scale, self._target_units.mean_D, self.units)

    def _dewhitened(self, sae: InferenceSae, read: Whitening, written: Whitening) -> InferenceSae:
        """An SAE of whitened activations, for raw ones."""
        matrices = (each.to(self._device, self._dtype) for each in (read.matrix_DD, written.inverse_DD))
        sae = sae.through(*matrices)
        if self.units.mean_D is None or self._target_units.mean_D is None:
            return sae
        if self.spaces.same:
            return sae.about(self.units.mean_D)
        return sae.reading(1.0, self.units.mean_D).giving_about(self._target_units.mean_D)

    def _units_of(self, scales: Sequence[float], sites: Sequence[SiteStatistics], which: int) -> Units:
        """Of activations of these sites, end to end; `which`: they are read (0) or written (1)."""
        centres = [site.centre for site in sites if site.centre is not None]
        centre_D = torch.cat(centres).to(self._device, self._dtype) if centres else None
        if self._whitenings is not None:
            return Units(1.0, centre_D, self._whitenings[which].matrix_DD.to(self._device, self._dtype))
        if len(sites) == 1:
            return Units(scales[0], centre_D)
        of_site = [torch.full_like(site.mean, c) for site, c in zip(sites, scales, strict=True)]
        return Units(torch.cat(of_site).to(self._device, self._dtype), centre_D)


def _end_to_end(found: Mapping[str, Tensor], hooks: Sequence[str]) -> Tensor:
    """[B, D]: activations of these hooks."""
    return found[hooks[0]] if len(hooks) == 1 else torch.cat([found[hook] for hook in hooks], dim=1)
