"""CE over compute, by hand."""

from dataclasses import replace
from math import e, exp, sqrt
from pathlib import Path

import pytest
import torch

from sae_sweep.analyses.scaling.compared import Ce, Compared
from sae_sweep.analyses.scaling.curve import Curve
from sae_sweep.analyses.scaling.family import Row, read_table
from sae_sweep.errors import ConfigError


def test_a_curve_that_falls() -> None:
    """CE 4, 3, 3.5, 2 at log compute 0, 1, 2, 3: the second and third are out of order, and stand together at 1.5 with
    3.25. CE 3.625 is half way to there; 4.75 and 0.75 are as far beyond the first line as it is long, and twice the
    last."""
    curve = Curve.of([(e**3, 2.0), (1.0, 4.0), (e, 3.0), (e**2, 3.5)])
    assert curve.log_compute == pytest.approx([0, 1.5, 3])
    assert curve.ce == pytest.approx([4, 3.25, 2])
    assert curve.compute(3.625) == pytest.approx(exp(0.75))
    assert [curve.compute(ce) for ce in (4, 3.25, 2)] == pytest.approx([1, exp(1.5), exp(3)])
    assert [curve.holds(ce) for ce in (4.01, 4, 2, 1.99)] == [False, True, True, False]
    assert curve.compute(4.75) == pytest.approx(exp(-1.5))
    assert curve.compute(0.75) == pytest.approx(exp(4.5))
    assert len(Curve.of([(1.0, 2.0), (2.0, 2.0), (3.0, 5.0)]).ce) == 1, "it does not fall"


def ce(*values: float) -> Ce:
    """Of sequences of ten tokens, and one without."""
    return Ce.of(torch.tensor([*(10 * value for value in values), 0.0]), torch.tensor([10.0] * len(values) + [0.0]))


TABLE = [(1.0, Row(1.0, 4.0)), (e**2, Row(e**2, 2.0))]


def test_share_of_a_table_with_its_error() -> None:
    """log compute is 4 - CE, so CE 3.1 against 2.5 is exp(-0.6); without a sequence exp(-0.7) or exp(-0.5)."""
    compared = Compared(TABLE, ce(2.5, 2.5), None, False)
    name, found = compared.recovered(ce(3.0, 3.2), 0.1)
    assert (name, found.value, found.n, found.control) == ("recovered", pytest.approx(exp(-0.6)), 20, 0.1)
    over_sequences = (exp(-0.5) - exp(-0.7)) / 2
    assert found.standard_error == pytest.approx(over_sequences)
    clean = compared.compute_clean()
    assert (clean.value, clean.standard_error) == (pytest.approx(exp(1.5)), pytest.approx(0, abs=1e-12))
    doubtful = replace(compared, family=[(1.0, Row(1.0, 4.0, 0.1)), TABLE[1]])
    of_table = (exp(-0.6 * 2 / 2.1) - exp(-0.6 * 2 / 1.9)) / 2  # the line falls by 2 from 4.1, or from 3.9
    assert doubtful.recovered(ce(3.0, 3.2), None)[1].standard_error == pytest.approx(
        sqrt(over_sequences**2 + of_table**2)
    )
    assert doubtful.compute_clean().standard_error == pytest.approx((exp(2 * 1.6 / 2.1) - exp(2 * 1.4 / 1.9)) / 2)
    one = replace(compared, clean=ce(2.5)).recovered(ce(3.0), None)[1]
    assert one.standard_error is None, "a single sequence has none"


def test_of_measured_models_what_sequences_share_is_in_no_error() -> None:
    """Every model's CE is larger by one on the second sequence: the share is the same of both."""
    family = [(1.0, ce(3.5, 4.5)), (e**2, ce(1.5, 2.5))]
    name, found = Compared(family, ce(2.0, 3.0), None, False).recovered(ce(2.6, 3.6), None)
    assert (name, found.value) == ("recovered", pytest.approx(exp(-0.6)))
    assert found.standard_error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("error", [0.3, 0.0999])
def test_a_family_that_may_not_fall_has_no_error(error: float) -> None:
    """CE 3 and 2.9, each with an error larger than what is between them, or nearly as large; and measured models of
    which one is no better without the first sequence."""
    table = [(1.0, Row(1.0, 3.0, error)), (e**2, Row(e**2, 2.9, error))]
    name, found = Compared(table, ce(2.9, 2.9), None, False).recovered(ce(2.91, 2.95), None)
    assert (name, found.value, found.standard_error) == ("recovered", pytest.approx(exp(-0.6), rel=1e-4), None)
    measured = [(1.0, ce(3.0, 3.0)), (e**2, ce(2.9, 3.0))]
    found = Compared(measured, ce(2.97, 2.97), None, False).recovered(ce(2.96, 2.98), None)[1]
    assert (found.value, found.standard_error) == (pytest.approx(1, rel=1e-4), None)


def test_beyond_the_family_it_is_a_bound_unless_a_guess_is_asked_for() -> None:
    compared = Compared(TABLE, ce(2.5, 2.5), None, False)
    name, found = compared.recovered(ce(4.4, 4.6), None)
    assert (name, found.value, found.standard_error) == ("recovered_at_most", pytest.approx(exp(-1.5)), None)
    guessed = replace(compared, extrapolate=True).recovered(ce(4.4, 4.6), None)
    assert (guessed[0], guessed[1].value) == ("recovered_extrapolated", pytest.approx(exp(-2)))
    name, found = replace(compared, clean=ce(1.0), own=e**3).recovered(ce(1.5), None)
    assert (name, found.value) == ("recovered_at_least", pytest.approx(exp(-1)))
    name, found = replace(compared, own=e**3).recovered(ce(3.0, 3.0), None)
    assert (name, found.value) == ("recovered", pytest.approx(exp(1 - 3)))


def test_a_table_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "family.csv"
    file.write_text("name,compute,ce,standard_error\nsmall,1e18,3.5,0.01\nlarge,1e20,2.5,\n")
    assert read_table("table", str(file)) == [Row(1e18, 3.5, 0.01), Row(1e20, 2.5)]
    for text, said in (
        ("compute\n1\n", "has no column ce; its first line names them: compute, ce\\[, standard_error\\]"),
        ("compute,ce\n1,2\nx,3\n", "line 3 has something that is no number"),
        ("compute,ce\n0,3\n", "line 2 must have compute above 0, and finite numbers"),
        ("compute,ce\n1,inf\n", "line 2 must have compute above 0, and finite numbers"),
        ("compute,ce\n1\n", "line 2 has something that is no number"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_table("table", str(file))
    with pytest.raises(ConfigError, match=r"table=nowhere\.csv cannot be read"):
        read_table("table", "nowhere.csv")
