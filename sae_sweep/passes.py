"""How a group fits a machine: which members share the device, and how often the model's pass is made. No torch.

Members that do not fit the device together are put into *waves*, which take turns inside a block and wait in the
host's memory. Where the host has not the room either, or a block of all sites has not, the group is cut into several
passes, each of which runs the model once over the tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sae_sweep.errors import ConfigError
from sae_sweep.estimates import bytes_text, peak, phases, state_bytes
from sae_sweep.model.sites import Site
from sae_sweep.plan import Bank, Group, Member, hooks_of, parted

GB = 10**9


@dataclass(frozen=True)
class Wave:
    """Parts of banks that are on the device together."""

    banks: tuple[Bank, ...]
    peak_bytes: int
    """What the device holds at its fullest while they are."""

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(member for bank in self.banks for member in bank.members)

    @property
    def state_bytes(self) -> int:
        """Of weights, moments and counters."""
        return sum(map(state_bytes, self.members))


@dataclass(frozen=True)
class Pass:
    """Members that are trained in one run of the model over the tokens, wave by wave in each block."""

    group: Group
    waves: tuple[Wave, ...]

    @property
    def host_bytes(self) -> int:
        """Of the members that wait; a single wave stays on the device."""
        return sum(wave.state_bytes for wave in self.waves) if len(self.waves) > 1 else 0


def plan_passes(group: Group, device: float | None, host: float | None) -> list[Pass]:
    """The passes of a group on a device and a host of so many bytes; None is enough.

    Waves are filled in the members' order. A single wave is planned where that does. Raises ConfigError for an SAE
    that does not fit the device by itself.
    """
    if device is None:
        return [Pass(group, (_wave(group, _parts(group)),))]
    passes = []
    for of_sites in _site_groups(group, device):
        passes += _host_passes(of_sites, _parts(of_sites), device, host)
    return passes


def _site_groups(group: Group, device: float) -> list[Group]:
    """The group, or where its block leaves no room for some SAE, groups of fewer sites."""
    groups: list[Group] = []
    sites: list[Site] = []
    for site in dict.fromkeys(bank.site for bank in group.banks):
        if sites and _fits(_at(group, [*sites, site]), device):
            sites.append(site)
            continue
        if sites:
            groups.append(_at(group, sites))
        sites = [site]
        _check(_at(group, sites), device)
    return [*groups, _at(group, sites)]


def _fits(group: Group, device: float) -> bool:
    return all(peak(group, [part]).total <= device for part in _parts(group))


def _check(group: Group, device: float) -> None:
    """Raises ConfigError unless every part of the group's banks fits the device alone."""
    for part in _parts(group):
        fullest = peak(group, [part])
        if fullest.total > device:
            largest = max(part.members, key=lambda member: member.width)
            parts = ", ".join(f"{name} {bytes_text(size)}" for name, size in fullest.parts.items() if size)
            raise ConfigError(
                f"launcher.memory_gb={device / GB:g}: {largest.label or largest.identity} alone needs"
                f" {bytes_text(fullest.total)} ({fullest.phase}: {parts}), and an SAE cannot be spread over devices;"
                " give more memory, or lower sae.width, training.batch_size or data.block_rows"
            )


def _host_passes(group: Group, parts: Sequence[Bank], device: float, host: float | None) -> list[Pass]:
    """Passes of neighbouring parts, each as long as the host can hold, or as one wave is."""
    if not parts:
        return []
    waves = _waves(group, parts, device)
    if len(waves) == 1 or host is None or sum(wave.state_bytes for wave in waves) <= host:
        return [Pass(_grouped(group, parts), tuple(waves))]
    held = 0
    taken = len(waves[0].banks)  # a wave that stays on the device needs no host
    for count, part in enumerate(parts, 1):
        held += sum(map(state_bytes, part.members))
        if held > host:
            break
        taken = max(taken, count)
    own, rest = parts[:taken], parts[taken:]
    first = Pass(_grouped(group, own), tuple(_waves(group, own, device)))
    return [first, *_host_passes(group, rest, device, host)]


def _waves(group: Group, parts: Sequence[Bank], device: float) -> list[Wave]:
    waves: list[list[Bank]] = []
    for part in parts:
        if waves and peak(group, [*waves[-1], part]).total <= device:
            waves[-1].append(part)
        else:
            waves.append([part])
    return [_wave(group, banks) for banks in waves]


def _wave(group: Group, banks: Sequence[Bank]) -> Wave:
    return Wave(tuple(banks), max(one.total for one in phases(group, banks)))


def _parts(group: Group) -> list[Bank]:
    return [part for bank in group.banks for part in parted(bank)]


def _at(group: Group, sites: Sequence[Site]) -> Group:
    """The part of a group that is at these sites."""
    banks = tuple(bank for bank in group.banks if bank.site in sites)
    return Group(group.key, banks, hooks_of(banks))


def _grouped(group: Group, parts: Sequence[Bank]) -> Group:
    """The part of a group that has these members."""
    asked = {member.identity for part in parts for member in part.members}
    banks = [Bank(bank.site, tuple(m for m in bank.members if m.identity in asked)) for bank in group.banks]
    kept = tuple(bank for bank in banks if bank.members)
    return Group(group.key, kept, hooks_of(kept))
