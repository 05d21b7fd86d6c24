"""Which device trains what, and which rows it reads."""

from itertools import product

import pytest

from sae_sweep.config.files import config_of
from sae_sweep.config.schema import MemberConfig
from sae_sweep.plan.groups import BankPlan, plan_sweep
from sae_sweep.plan.spread import chunk_cost, shares, spread


def config(*overrides: str) -> MemberConfig:
    return config_of(overrides)


def parts(widths: list[int], layers: tuple[int, ...] = (1,)) -> list[BankPlan]:
    """One member to a part: a batch of 2^15 tokens leaves no room for two."""
    wide = ("sae=topk", "sae.k=1", "training.batch_size=32768")
    asked = [
        config(*wide, f"sae.width={width}", f"site.layer={layer}", f"seed={seed}")
        for layer, (seed, width) in product(layers, enumerate(widths))
    ]
    (group,) = plan_sweep(asked).groups
    return [part for bank in group.banks for part in bank.chunks()]


def loads(found: list[list[BankPlan]]) -> list[float]:
    unit = chunk_cost(parts([64])[0])
    return [sum(map(chunk_cost, own)) / unit for own in found]


def test_one_device_has_everything_in_order() -> None:
    own = parts([64, 128, 64], (1, 2))
    assert spread(own, 1) == [own]


def test_the_costliest_go_first_to_who_has_least() -> None:
    own = parts([64, 192, 64, 128, 64])
    found = spread(own, 3)
    assert sorted(loads(found)) == [2, 3, 3]
    assert sorted(part.members[0].identity for some in found for part in some) == sorted(
        part.members[0].identity for part in own
    )


def test_more_devices_than_parts() -> None:
    assert sorted(map(len, spread(parts([64, 64]), 4))) == [0, 0, 1, 1]
    assert sorted(map(len, spread(parts([64], (1, 2)), 4))) == [0, 0, 1, 1]


@pytest.mark.parametrize("devices", [2, 3, 4, 6, 7])
def test_parts_of_several_sites_stay_beside_their_neighbours(devices: int) -> None:
    own = parts([64, 128, 64], (1, 2, 3))
    found = spread(own, devices)
    assert [part for some in found for part in some] == own
    assert len(found) == devices
    best = min(_largest(costs, devices) for costs in [loads([[part] for part in own])])
    assert max(loads(found)) == best
    assert all(found)


def _largest(costs: list[float], runs: int) -> float:
    """The least that the costliest of so many runs of neighbours can cost, by trying all."""
    if runs == 1:
        return sum(costs)
    return min(max(sum(costs[:first]), _largest(costs[first:], runs - 1)) for first in range(len(costs) + 1))


def test_forward_passes_are_shared_as_evenly_as_can_be() -> None:
    assert [list(share) for share in shares(7, 3)] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [len(share) for share in shares(2, 4)] == [1, 1, 0, 0]
    assert list(shares(5, 1)[0]) == [0, 1, 2, 3, 4]
