"""What a plan says a run will hold is what it holds."""

import sys

import pytest

from scripts.bench.memory import in_child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the resident size is read from /proc")

MEMBERS = (
    "data=toy data.block_rows=64 evaluation.tokens=512 training.batch_size=4096 training.tokens=4096"
    " + sae=standard sae.l1=1 sae.width=6000 + sae=topk sae.k=8 sae.width=8192"
)


def test_the_peak_of_a_run_is_predicted() -> None:
    """The run is a process of its own, and the peak is its largest resident size, most of a GB."""
    found = in_child(MEMBERS)
    assert found["measured"] > 5e8
    assert found["estimated"] == pytest.approx(found["measured"], rel=0.15), found
