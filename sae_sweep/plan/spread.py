"""Which device trains which chunks, and which rows each of them runs the model on. No torch."""

from collections.abc import Sequence
from itertools import accumulate

from sae_sweep.plan.groups import BankPlan


def chunk_cost(chunk: BankPlan) -> float:
    """What training it costs, in multiply-adds of encoder products: all other work of a step grows with them."""
    return sum(member.config.training.tokens * member.encoder_numbers for member in chunk.members)


def spread(chunks: Sequence[BankPlan], devices: int) -> list[list[BankPlan]]:
    """Each device's chunks, in their order; none for a device where there are fewer chunks than devices.

    At one site the costliest chunk goes first, each to the device that has least to do. Chunks of several sites are cut
    into runs of neighbours, so that a device needs the activations of few sites: they are what the network carries.
    """
    if len({chunk.site.hook for chunk in chunks}) > 1 and devices > 1:
        return _runs(chunks, devices)
    loads = [0.0] * devices
    taken: list[list[int]] = [[] for _ in range(devices)]
    for index in sorted(range(len(chunks)), key=lambda i: chunk_cost(chunks[i]), reverse=True):
        device = loads.index(min(loads))
        loads[device] += chunk_cost(chunks[index])
        taken[device].append(index)
    return [[chunks[index] for index in sorted(own)] for own in taken]


def shares(forwards: int, devices: int) -> list[range]:
    """Which of a block's forward passes each device makes: runs of neighbours, the first ones one longer."""
    least, over = divmod(forwards, devices)
    ends = list(accumulate(least + (device < over) for device in range(devices)))
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _runs(chunks: Sequence[BankPlan], devices: int) -> list[list[BankPlan]]:
    """The chunks, by site, in runs of neighbours: the costliest costs as little as can be, the others are as even."""
    order = {hook: place for place, hook in enumerate(dict.fromkeys(chunk.site.hook for chunk in chunks))}
    ordered = sorted(chunks, key=lambda chunk: order[chunk.site.hook])
    costs = [chunk_cost(chunk) for chunk in ordered]
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
