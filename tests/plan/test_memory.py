"""What a plan says a run will hold is what it holds."""

import sys

import pytest

from sae_sweep.activations import scaling
from sae_sweep.architectures.base import ARCHITECTURES
from sae_sweep.evaluation import recovery, splice, sums
from sae_sweep.kernels import sparse
from sae_sweep.plan import members as plan
from sae_sweep.plan import memory as peaks
from sae_sweep.training.run import trim
from sae_sweep.training.step import trainer
from scripts.bench.memory import in_child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the resident size is read from /proc")


def test_a_plan_counts_what_the_code_holds() -> None:
    """Planning loads no torch, so it has these numbers a second time."""
    assert peaks.CODES == sums.CODE_ELEMENTS
    assert peaks.LOGITS == splice.LOGIT_ELEMENTS
    told = peaks.TRIM_ROWS, peaks.TRIM_FEWEST, peaks.TRIM_MARGINS
    assert told == (trim.ROWS_AT_ONCE, trim.FEWEST_ROWS, trim.MARGINS_AT_ONCE)
    assert all("pair_bytes" in vars(facts.Config) for facts in ARCHITECTURES.values()), "each was measured"
    assert peaks.SAMPLE_ROWS == scaling.SAMPLE_ROWS
    assert peaks.COSINE_BYTES == 8 * recovery.COSINE_ELEMENTS
    assert peaks.SMALL_ENCODER == sparse.CACHE_BYTES
    assert plan.PART_ELEMENTS >= trainer.CHUNK_ELEMENTS, "a chunk must lie within a part"


MEMBERS = (
    "data=toy data.block_rows=64 evaluation.tokens=512 training.batch_size=4096 training.tokens=4096"
    " + sae=standard sae.l1=1 sae.width=9000 + sae=topk sae.k=8 sae.width=12288"
)


def test_the_peak_of_a_run_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is a process of its own, of whose peak the members and their steps are most of a GB. On one core: whether
    two steps are at their fullest together is chance."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = in_child(MEMBERS)
    assert found["measured"] > 1.2e9
    assert found["estimated"] == pytest.approx(found["measured"], rel=0.15), found
