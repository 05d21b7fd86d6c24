"""What a plan says a run will hold is what it holds."""

import sys

import pytest

from sae_sweep import peaks, plan
from sae_sweep.activations import scaling
from sae_sweep.evaluation import evaluate, recovery, splice
from sae_sweep.kernels import sparse
from sae_sweep.training import trainer, trim
from scripts.bench.memory import in_child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the resident size is read from /proc")


def test_a_plan_counts_what_the_code_holds() -> None:
    """Planning loads no torch, so it has these numbers a second time."""
    assert peaks.CODES == evaluate.CODE_ELEMENTS
    assert peaks.LOGITS == splice.LOGIT_ELEMENTS
    assert peaks.TRIM_ROWS == trim.ROWS_AT_ONCE
    assert peaks.SAMPLE_ROWS == scaling.SAMPLE_ROWS
    assert peaks.COSINE_BYTES == 8 * recovery.COSINE_ELEMENTS
    assert peaks.SMALL_ENCODER == sparse.CACHE_BYTES
    assert plan.PART_ELEMENTS >= trainer.CHUNK_ELEMENTS, "a chunk must lie within a part"


MEMBERS = (
    "data=toy data.block_rows=64 evaluation.tokens=512 training.batch_size=4096 training.tokens=4096"
    " + sae=standard sae.l1=1 sae.width=9000 + sae=topk sae.k=8 sae.width=12288"
)


def test_the_peak_of_a_run_is_predicted() -> None:
    """The run is a process of its own, and the peak is its largest resident size, most of a GB."""
    found = in_child(MEMBERS)
    assert found["measured"] > 5e8
    assert found["estimated"] == pytest.approx(found["measured"], rel=0.15), found
