"""Thirty steps of losses of each architecture, as they were when they were last looked at.

The files beside this one hold a line per step: step, loss, reconstruction, sparsity, auxiliary. A change of the
maths that is meant to change them is followed by

    SAE_SWEEP_WRITE_GOLDEN=1 python -m pytest tests/golden

and the new files are committed with the reason.
"""

import os
from pathlib import Path

import pytest

from tests.golden.fixed_problem import KINDS, STEPS, trained

TERMS = ("loss", "reconstruction", "sparsity", "auxiliary")


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_what_they_were(kind: str) -> None:
    found = [[record.step, *(record.values[term] for term in TERMS)] for record in trained(kind).records]
    path = Path(__file__).parent / f"{kind}.txt"
    if os.environ.get("SAE_SWEEP_WRITE_GOLDEN"):
        path.write_text("".join(f"{step} {' '.join(f'{value:.11e}' for value in rest)}\n" for step, *rest in found))
    golden = [[float(word) for word in line.split()] for line in path.read_text().splitlines()]
    assert len(golden) == STEPS
    for own, expected in zip(found, golden, strict=True):
        assert own == pytest.approx(expected, rel=1e-9, abs=1e-15)
