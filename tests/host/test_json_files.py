"""JSON of ours and of others: what is no number of JSON is refused, unless it is asked for."""

from math import inf
from pathlib import Path

import pytest

from sae_sweep.host.json_files import parsed_object, read_object


@pytest.mark.parametrize("spelt", ["Infinity", "-Infinity", "NaN", "1e999"])
def test_a_number_that_is_not_finite_is_refused(spelt: str) -> None:
    with pytest.raises(ValueError, match=f"{spelt} is no finite number"):
        parsed_object(f'{{"l0": [1.5, {spelt}]}}')


def test_configs_of_others_may_have_them(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"time_step_limit": [0.0, Infinity], "rope": 1e-5}')
    found = read_object(tmp_path / "config.json", finite=False)
    assert found == {"time_step_limit": [0.0, inf], "rope": 1e-5}


def test_numbers_are_read_to_the_last_digit() -> None:
    assert parsed_object('{"a": 0.1, "b": 12345678901234567890, "c": -0.0}') == {
        "a": 0.1,
        "b": 12345678901234567890,
        "c": 0,
    }
