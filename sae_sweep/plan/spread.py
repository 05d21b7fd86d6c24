"""Which device trains which part of a bank, and which rows each of them runs the model on. No torch."""

from collections.abc import Sequence
from itertools import accumulate

from sae_sweep.plan.members import Bank


def part_cost(part: Bank) -> float:
    """What training it costs, in multiply-adds of encoder products: all other work of a step grows with them."""
    return sum(member.config.training.tokens * member.d * member.width for member in part.members)


def spread(parts: Sequence[Bank], devices: int) -> list[list[Bank]]:
    """Each device's parts, in their order; none for a device where there are fewer parts than devices.

    At one site the costliest part goes first, each to the device that has least to do. Parts of several sites are cut
    into runs of neighbours, so that a device needs the activations of few sites: they are what the network carries.
    """
    if len({part.site.hook for part in parts}) > 1 and devices > 1:
        return _runs(parts, devices)
    loads = [0.0] * devices
    taken: list[list[int]] = [[] for _ in range(devices)]
    for index in sorted(range(len(parts)), key=lambda i: part_cost(parts[i]), reverse=True):
        device = loads.index(min(loads))
        loads[device] += part_cost(parts[index])
        taken[device].append(index)
    return [[parts[index] for index in sorted(own)] for own in taken]


def shares(forwards: int, devices: int) -> list[range]:
    """Which of a block's forward passes each device makes: runs of neighbours, the first ones one longer."""
    least, over = divmod(forwards, devices)
    ends = list(accumulate(least + (device < over) for device in range(devices)))
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _runs(parts: Sequence[Bank], devices: int) -> list[list[Bank]]:
    """The parts, by site, in runs of neighbours: the costliest costs as little as can be, the others are as even."""
    order = {hook: place for place, hook in enumerate(dict.fromkeys(part.site.hook for part in parts))}
    ordered = sorted(parts, key=lambda part: order[part.site.hook])
    costs = [part_cost(part) for part in ordered]
    low, high = max(costs), sum(costs)
    for _ in range(60):  # of bisection: to the last bits of a float
        middle = (low + high) / 2
        low, high = (low, middle) if _runs_of(costs, middle) <= devices else (middle, high)
    found, first = [], 0
    for left in range(devices, 0, -1):
        fair, end, held = sum(costs[first:]) / left, first, 0.0
        while end < len(costs) and (end == first or held + costs[end] <= fair or _runs_of(costs[end:], high) >= left):
            held, end = held + costs[end], end + 1
        found.append([ordered[index] for index in range(first, end)])
        first = end
    return found


def _runs_of(costs: Sequence[float], most: float) -> int:
    """How few runs of neighbours there can be that each cost no more than `most`."""
    count, held = min(1, len(costs)), 0.0
    for cost in costs:
        if held and held + cost > most:
            count, held = count + 1, 0.0
        held += cost
    return count
