"""Judging again: what no sound SAE comes to is no result."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from sae_sweep.analyses.session.judging import check_finite
from sae_sweep.errors import ConfigError


def judged(**metrics: float | None) -> Any:
    return cast(Any, SimpleNamespace(metrics=metrics))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    found = {"sound": judged(l0=3.0, mmcs_truth=None), "broken": judged(l0=3.0, fvu=value)}
    with pytest.raises(ConfigError, match=f"eval: fvu of broken comes out as {value}: a file of it is damaged"):
        check_finite(found)
    check_finite({"sound": found["sound"]})
