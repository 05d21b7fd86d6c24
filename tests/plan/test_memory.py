"""What a plan says a run will hold is what it holds."""

import sys

import pytest

from sae_sweep.architectures.base import ARCHITECTURES
from sae_sweep.plan.sizes import bytes_text
from scripts.bench.memory import in_child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the resident size is read from /proc")


def test_every_architecture_was_measured() -> None:
    assert all("pair_bytes" in vars(facts.Config) for facts in ARCHITECTURES.values())


RUN = "data=toy data.block_rows=64 evaluation.tokens=512 training.batch_size=4096 training.tokens=4096"
MEMBERS = f"{RUN} + sae=standard sae.l1=1 sae.width=9000 + sae=topk sae.k=8 sae.width=12288"
SMALL = f"{RUN} + sae=topk sae.k=8 sae.width=64"


@pytest.mark.evidence  # scripts/bench/memory.py measures many more; what is added up is tested in test_plan.py
def test_the_peak_of_a_run_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is a process of its own, of whose peak members and their steps are most of a GB. On one core: whether
    two steps are at their fullest together is chance. Beside a small run: what libraries take differs by a fifth of a
    GB between processors."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found, small = in_child(MEMBERS), in_child(SMALL)
    measured, estimated = (found[key] - small[key] for key in ("measured", "estimated"))
    assert measured > 0.7e9
    assert estimated == pytest.approx(measured, rel=0.15), (found, small)


def test_bytes_are_short_at_every_size() -> None:
    said = {999: "999 B", 999_499: "999 kB", 999_700: "1 MB", 1.5e9: "1.5 GB", 999.9e9: "1 TB"}
    assert {number: bytes_text(number) for number in said} == said
