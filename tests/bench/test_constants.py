"""Trying other values of a constant: each is in force while it is timed, and the shipped one stands afterwards."""

from sae_sweep.plan.constants import CODE_ELEMENTS
from scripts.bench import constants


def test_times_are_in_those_of_the_shipped_value() -> None:
    shipped, seen = CODE_ELEMENTS["cpu"], list[int]()
    tried = constants.Constant(
        lambda value: CODE_ELEMENTS.__setitem__("cpu", value),
        (shipped // 2, 2 * shipped),
        shipped,
        lambda d, width: lambda: seen.append(CODE_ELEMENTS["cpu"]),
    )
    times = constants.times_shipped(tried, 4, 8)
    assert list(times) == [str(shipped // 2), str(shipped), str(2 * shipped)]
    assert times[str(shipped)] == 1
    assert set(seen) == {shipped // 2, shipped, 2 * shipped}
    assert CODE_ELEMENTS["cpu"] == shipped


def test_every_constant_is_tried_around_what_ships() -> None:
    for constant in constants.CONSTANTS.values():
        assert min(constant.values) < constant.shipped < max(constant.values)
