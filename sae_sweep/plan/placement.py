"""How a group fits a machine: which members share a device, and how often the model's pass is made. No torch.

Several devices share a pass: its banks are spread over them by cost (`spread.py`), and each holds the block
at the sites of its own members. Members that do not fit their device together are put into *waves*, which take turns
inside a block and wait in the host's memory. Where the host has not the room either, or a block of all sites has not,
the group is cut into several passes, each of which runs the model once over the tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sae_sweep.errors import ConfigError
from sae_sweep.model.sites import Site
from sae_sweep.plan.devices import on_gpu
from sae_sweep.plan.groups import BankPlan, Group, hooks_of
from sae_sweep.plan.members import Member
from sae_sweep.plan.memory import peak, phases
from sae_sweep.plan.sizes import block_bytes, bytes_text, pinned_bytes, state_bytes
from sae_sweep.plan.spread import spread

GB = 10**9
USABLE = 0.95
"""Of what a device has free: libraries take memory that no plan counts."""


@dataclass(frozen=True)
class Wave:
    """Chunks of banks that are on the device together."""

    banks: tuple[BankPlan, ...]
    peak_bytes: int
    """What the device holds at its fullest while they are; the next wave among it, if that comes in meanwhile."""
    device: int = 0
    """Which one, of those that share the pass."""
    ahead: bool = False
    """Whether the next one of its device comes in while this one is trained (`training/devices/ferry.py`)."""

    @property
    def members(self) -> tuple[Member, ...]:
        """The members of all its banks, in their order."""
        return tuple(member for bank in self.banks for member in bank.members)

    @property
    def state_bytes(self) -> int:
        """Of weights, moments and counters."""
        return sum(map(state_bytes, self.members))

    @property
    def waiting_bytes(self) -> int:
        """Of the same in the host's memory: a buffer for each chunk, pinned beside a GPU."""
        chunks = [sum(map(state_bytes, bank.members)) for bank in self.banks]
        return sum(map(pinned_bytes, chunks) if on_gpu(self.members[0].config) else chunks)


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
        return sum(wave.waiting_bytes for wave in waves) if len(waves) > 1 else 0

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
        return [_pass(group, _chunks(group), machine)]
    passes = []
    for of_sites in _site_groups(group, machine):
        passes += _host_passes(of_sites, _chunks(of_sites), machine)
    return passes


def on_the_way(group: Group, own: Group, devices: int) -> int:
    """Bytes that a device holds of activations while a block is exchanged: what it has harvested of its share of the
    rows, at all sites of the group, and one of its own sites as it comes in."""
    if devices == 1:
        return 0
    coming = max(block_bytes(at(own, [site])) for site in sites_of(own.banks))
    return block_bytes(group) // devices + coming


def at(group: Group, sites: Sequence[Site]) -> Group:
    """The group at these sites alone."""
    banks = tuple(bank for bank in group.banks if bank.site in sites)
    return Group(group.key, banks, hooks_of(banks))


def sites_of(banks: Sequence[BankPlan]) -> tuple[Site, ...]:
    """Each site once, in the banks' order."""
    return tuple(dict.fromkeys(bank.site for bank in banks))


def check_host(planned: Sequence[Pass], host: float) -> None:
    """Raises ConfigError where passes on a CPU need more than the so many bytes that its host has at all."""
    waves = [(one, wave) for one in planned for wave in one.waves]
    made, fullest = max(waves, key=lambda pair: pair[1].peak_bytes)
    if fullest.peak_bytes > host:
        phase = peak(made.group, fullest.banks)
        held = ", ".join(f"{name} {bytes_text(size)}" for name, size in phase.held.items() if size)
        raise ConfigError(
            f"launcher.memory_gb: a pass on this machine's CPU needs {bytes_text(phase.total)} ({phase.phase}: {held}),"
            f" and the machine has {bytes_text(host)}; lower sae.width, data.block_rows or training.batch_size, train"
            " fewer members at a time, or take a larger machine"
        )


def _pass(group: Group, chunks: Sequence[BankPlan], machine: _Machine) -> Pass:
    """The chunks in one pass, whatever the host has room for."""
    waves: list[Wave] = []
    for device, own in enumerate(spread(chunks, machine.devices)):
        if own:
            waves += _waves(group, own, machine, device)
    return Pass(_grouped(group, chunks), tuple(waves), machine.devices)


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
    """Whether every chunk fits its device alone."""
    assert machine.device is not None
    return all(_peak(own, [chunk], coming) <= machine.device for own, chunk, coming in _shares(group, machine))


def _shares(group: Group, machine: _Machine) -> list[tuple[Group, BankPlan, int]]:
    """Every chunk, with what of the group is at its device's sites, and the bytes that are on their way there."""
    found = list[tuple[Group, BankPlan, int]]()
    for chunks in filter(None, spread(_chunks(group), machine.devices)):
        own = _of(group, chunks, machine)
        coming = on_the_way(group, own, machine.devices)
        found += [(own, chunk, coming) for chunk in chunks]
    return found


def _check(group: Group, machine: _Machine) -> None:
    """Raises ConfigError unless every chunk of the group's banks fits its device alone."""
    assert machine.device is not None
    for own, chunk, coming in _shares(group, machine):
        if _peak(own, [chunk], coming) > machine.device:
            fullest = peak(own, [chunk], coming)
            largest = max(chunk.members, key=lambda member: member.width)
            held = ", ".join(f"{name} {bytes_text(size)}" for name, size in fullest.held.items() if size)
            raise ConfigError(
                f"launcher.memory_gb={machine.device / GB:g}: {largest.label or largest.identity} alone needs"
                f" {bytes_text(fullest.total)} ({fullest.phase}: {held}), and an SAE cannot be spread over devices;"
                " give more memory, or lower sae.width, training.batch_size or data.block_rows"
            )


def _host_passes(group: Group, chunks: Sequence[BankPlan], machine: _Machine) -> list[Pass]:
    """Passes of neighbouring chunks, each as long as the hosts can hold, or as one wave on each device is."""
    passes = []
    while chunks:
        taken = _most(group, chunks, machine)
        passes.append(_pass(group, chunks[:taken], machine))
        chunks = chunks[taken:]
    return passes


def _most(group: Group, chunks: Sequence[BankPlan], machine: _Machine) -> int:
    """The most first chunks of which no more wait on a host than it can hold; at least one, which need not wait."""
    least, most = 1, len(chunks) + 1
    if machine.host is None or _held(_pass(group, chunks, machine), machine) <= machine.host:
        return len(chunks)
    while most - least > 1:
        middle = (least + most) // 2
        if _held(_pass(group, chunks[:middle], machine), machine) <= machine.host:
            least = middle
        else:
            most = middle
    return least


def _held(made: Pass, machine: _Machine) -> int:
    """Bytes that wait on the fullest host."""
    each = machine.devices // machine.hosts
    waiting = [made.waiting(device) for device in range(machine.devices)]
    return max(sum(waiting[first : first + each]) for first in range(0, machine.devices, each))


def _waves(group: Group, chunks: Sequence[BankPlan], machine: _Machine, device: int) -> list[Wave]:
    """One device's members, as they take turns. A GPU has smaller waves than it could hold where that leaves room for
    the next one meanwhile."""
    own = _of(group, chunks, machine)
    coming = on_the_way(group, own, machine.devices)
    alone = [Wave(tuple(banks), _peak(own, banks, coming), device) for banks in _filled(own, chunks, machine, coming)]
    if len(alone) == 1 or not on_gpu(group.members[0].config):
        return alone
    assert machine.device is not None
    smaller = [Wave(tuple(banks), 0, device) for banks in _filled(own, chunks, machine, coming, twice=True)]
    found = []
    for wave, after in zip(smaller, [*smaller[1:], None], strict=True):
        peak_bytes, more = _peak(own, wave.banks, coming), 0 if after is None else after.state_bytes
        ahead = after is not None and peak_bytes + more <= machine.device
        found.append(replace(wave, peak_bytes=peak_bytes + more * ahead, ahead=ahead))
    return found if any(wave.ahead for wave in found) else alone


def _filled(
    own: Group, chunks: Sequence[BankPlan], machine: _Machine, coming: int, *, twice: bool = False
) -> list[list[BankPlan]]:
    """Chunks in waves, each as full as the device lets it be, where it holds the wave's state `twice` or once."""
    waves: list[list[BankPlan]] = []
    for chunk in chunks:
        banks = [*waves[-1], chunk] if waves else [chunk]
        more = sum(map(_state, banks)) if twice else 0
        if waves and (machine.device is None or _peak(own, banks, coming) + more <= machine.device):
            waves[-1].append(chunk)
        else:
            waves.append([chunk])
    return waves


def _state(bank: BankPlan) -> int:
    return sum(map(state_bytes, bank.members))


def _peak(own: Group, banks: Sequence[BankPlan], coming: int) -> int:
    """Bytes that a device holds, which has the sites of `own`, with these banks; so many of them on their way to it."""
    return max(one.total for one in phases(own, banks, coming))


def _of(group: Group, chunks: Sequence[BankPlan], machine: _Machine) -> Group:
    """The group as a device has it that trains these chunks: a device by itself has all sites."""
    if machine.devices == 1:
        return group
    return at(group, sites_of(chunks))


def _chunks(group: Group) -> list[BankPlan]:
    return [chunk for bank in group.banks for chunk in bank.chunks()]


def _grouped(group: Group, chunks: Sequence[BankPlan]) -> Group:
    """The group with these members alone."""
    asked = {member.identity for chunk in chunks for member in chunk.members}
    banks = [BankPlan(bank.site, tuple(m for m in bank.members if m.identity in asked)) for bank in group.banks]
    kept = tuple(bank for bank in banks if bank.members)
    return Group(group.key, kept, hooks_of(kept))
