"""What a terminal is told of a result."""

from pathlib import Path

import pytest

from sae_sweep.analyses.session.result import Number, Result
from sae_sweep.analyses.session.writing import write_result


def test_large_numbers_have_four_digits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = Result(numbers={"compute": Number(5.80661e18, 3.2e17, 9, None), "ce": Number(2.5, 0.125, 9, 10.0)})
    write_result(tmp_path, "worth", {}, found)
    told = "".join(capfd.readouterr())
    assert "5.807e+18 +- 3.2e+17 (n 9)" in told
    assert "2.5000 +- 0.1250 (n 9, control 10.0000)" in told
