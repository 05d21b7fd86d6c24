"""How a group fits a machine: which members share a device, and how often the model's pass is made. No torch.

Several devices share a pass: its banks are spread over them by cost (`spread.py`), and each holds the block
at the sites of its own members. Members that do not fit their device together are put into *waves*, which take turns
inside a block and wait in the host's memory. Where the host has not the room either, or a block of all sites has not,
the group is cut into several passes, each of which runs the model once over the tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sae_sweep.errors import ConfigError
from sae_sweep.model.sites import Site
from sae_sweep.plan.members import Bank, Group, Member, hooks_of, parted
from sae_sweep.plan.memory import peak, phases
from sae_sweep.plan.sizes import block_bytes, bytes_text, state_bytes
from sae_sweep.plan.spread import spread

GB = 10**9


@dataclass(frozen=True)
class Wave:
    """Parts of banks that are on the device together."""

    banks: tuple[Bank, ...]
    peak_bytes: int
    """What the device holds at its fullest while they are."""
    device: int = 0
    """Which one, of those that share the pass."""

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
    """Of all devices, the first one's first."""
    devices: int = 1

    def at(self, device: int) -> tuple[Wave, ...]:
        """The waves of one device; none where there are more devices than members to spread."""
        return tuple(wave for wave in self.waves if wave.device == device)

    @property
    def host_bytes(self) -> int:
        """Of the members that wait; a single wave stays on its device."""
        return sum(self.waiting(device) for device in range(self.devices))

    def waiting(self, device: int) -> int:
        """Bytes of one device's members in its host's memory."""
        waves = self.at(device)
        return sum(wave.state_bytes for wave in waves) if len(waves) > 1 else 0

    def sites(self, device: int) -> tuple[Site, ...]:
        """Where a device's members are."""
        return sites_of([bank for wave in self.at(device) for bank in wave.banks])


@dataclass(frozen=True)
class _Machine:
    device: float | None
    host: float | None
    devices: int
    hosts: int


def plan_passes(group: Group, device: float | None, host: float | None, devices: int = 1, hosts: int = 1) -> list[Pass]:
    """The passes of a group on devices and hosts of so many bytes each; None is enough.

    Waves are filled in the members' order. A single wave is planned where that does. Raises ConfigError for an SAE
    that does not fit a device by itself.
    """
    machine = _Machine(device, host, devices, hosts)
    if machine.device is None:
        return [_pass(group, _parts(group), machine)]
    passes = []
    for of_sites in _site_groups(group, machine):
        passes += _host_passes(of_sites, _parts(of_sites), machine)
    return passes


def on_the_way(group: Group, own: Group, devices: int) -> int:
    """Bytes that a device holds of activations while a block is exchanged: what it has harvested of its share of the
    rows, at all sites of the group, and one of its own sites as it comes in."""
    if devices == 1:
        return 0
    coming = max(block_bytes(at(own, [site])) for site in sites_of(own.banks))
    return block_bytes(group) // devices + coming


def at(group: Group, sites: Sequence[Site]) -> Group:
    """The part of a group that is at these sites."""
    banks = tuple(bank for bank in group.banks if bank.site in sites)
    return Group(group.key, banks, hooks_of(banks))


def sites_of(banks: Sequence[Bank]) -> tuple[Site, ...]:
    """Each site once, in the banks' order."""
    return tuple(dict.fromkeys(bank.site for bank in banks))


def _pass(group: Group, parts: Sequence[Bank], machine: _Machine) -> Pass:
    """The parts in one pass, whatever the host has room for."""
    waves: list[Wave] = []
    for device, own in enumerate(spread(parts, machine.devices)):
        if own:
            waves += _waves(group, own, machine, device)
    return Pass(_grouped(group, parts), tuple(waves), machine.devices)


def _site_groups(group: Group, machine: _Machine) -> list[Group]:
    """The group, or where its block leaves no room for some SAE, groups of fewer sites."""
    if _fits(group, machine):
        return [group]
    groups: list[Group] = []
    sites: list[Site] = []
    for site in sites_of(group.banks):
        if sites and _fits(at(group, [*sites, site]), machine):
            sites.append(site)
            continue
        if sites:
            groups.append(at(group, sites))
        sites = [site]
        _check(at(group, sites), machine)
    return [*groups, at(group, sites)]


def _fits(group: Group, machine: _Machine) -> bool:
    """Whether every part fits its device alone."""
    assert machine.device is not None
    return all(_peak(group, own, [part], machine) <= machine.device for own, part in _shares(group, machine))


def _shares(group: Group, machine: _Machine) -> list[tuple[Group, Bank]]:
    """Every part, with the part of the group that is at its device's sites."""
    return [(_of(group, own, machine), part) for own in spread(_parts(group), machine.devices) for part in own if own]


def _check(group: Group, machine: _Machine) -> None:
    """Raises ConfigError unless every part of the group's banks fits its device alone."""
    assert machine.device is not None
    for own, part in _shares(group, machine):
        if _peak(group, own, [part], machine) > machine.device:
            fullest = peak(own, [part], on_the_way(group, own, machine.devices))
            largest = max(part.members, key=lambda member: member.width)
            parts = ", ".join(f"{name} {bytes_text(size)}" for name, size in fullest.parts.items() if size)
            raise ConfigError(
                f"launcher.memory_gb={machine.device / GB:g}: {largest.label or largest.identity} alone needs"
                f" {bytes_text(fullest.total)} ({fullest.phase}: {parts}), and an SAE cannot be spread over devices;"
                " give more memory, or lower sae.width, training.batch_size or data.block_rows"
            )


def _host_passes(group: Group, parts: Sequence[Bank], machine: _Machine) -> list[Pass]:
    """Passes of neighbouring parts, each as long as the hosts can hold, or as one wave on each device is."""
    passes = []
    while parts:
        taken = _most(group, parts, machine)
        passes.append(_pass(group, parts[:taken], machine))
        parts = parts[taken:]
    return passes


def _most(group: Group, parts: Sequence[Bank], machine: _Machine) -> int:
    """The most first parts of which no more wait on a host than it can hold; at least one, which need not wait."""
    least, most = 1, len(parts) + 1
    if machine.host is None or _held(_pass(group, parts, machine), machine) <= machine.host:
        return len(parts)
    while most - least > 1:
        middle = (least + most) // 2
        if _held(_pass(group, parts[:middle], machine), machine) <= machine.host:
            least = middle
        else:
            most = middle
    return least


def _held(made: Pass, machine: _Machine) -> int:
    """Bytes that wait on the fullest host."""
    each = machine.devices // machine.hosts
    waiting = [made.waiting(device) for device in range(machine.devices)]
    return max(sum(waiting[first : first + each]) for first in range(0, machine.devices, each))


def _waves(group: Group, parts: Sequence[Bank], machine: _Machine, device: int) -> list[Wave]:
    """One device's members, as they take turns."""
    own = _of(group, parts, machine)
    waves: list[list[Bank]] = []
    for part in parts:
        if waves and (machine.device is None or _peak(group, own, [*waves[-1], part], machine) <= machine.device):
            waves[-1].append(part)
        else:
            waves.append([part])
    return [Wave(tuple(banks), _peak(group, own, banks, machine), device) for banks in waves]


def _peak(group: Group, own: Group, banks: Sequence[Bank], machine: _Machine) -> int:
    """Bytes that a device holds, which has the sites of `own`, with these banks."""
    return max(one.total for one in phases(own, banks, on_the_way(group, own, machine.devices)))


def _of(group: Group, parts: Sequence[Bank], machine: _Machine) -> Group:
    """The group as a device has it that trains these parts: a device by itself has all sites."""
    if machine.devices == 1:
        return group
    return at(group, sites_of(parts))


def _parts(group: Group) -> list[Bank]:
    return [part for bank in group.banks for part in parted(bank)]


def _grouped(group: Group, parts: Sequence[Bank]) -> Group:
    """The part of a group that has these members."""
    asked = {member.identity for part in parts for member in part.members}
    banks = [Bank(bank.site, tuple(m for m in bank.members if m.identity in asked)) for bank in group.banks]
    kept = tuple(bank for bank in banks if bank.members)
    return Group(group.key, kept, hooks_of(kept))
