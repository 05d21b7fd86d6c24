"""What Hydra's sweepers get back, batch by batch."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus

from sae_sweep.config.files import config_folder
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError, SweepFailed
from sae_sweep.launch.hydra.jobs import launch_jobs

Launch = Callable[[Sequence[Sequence[str]], Sequence[str] | None], list[JobReturn]]


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launch]:
    """`launch_jobs` with everything but the jobs and the targets given."""
    monkeypatch.chdir(tmp_path)
    earlier: list[MemberConfig] = []
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        master = compose("config", return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        yield lambda jobs, targets: launch_jobs(loader, master, jobs, targets, earlier, None, {})


def test_a_job_returns_its_metrics_or_the_targets(launch: Launch, training: Any) -> None:
    job = ["sae=topk", "sae.k=8"]
    (result,) = launch([job], None)
    assert result.status == JobStatus.COMPLETED
    assert result.return_value == {"l0": 12.0, "ce_recovered": 0.9}
    assert (result.overrides, result.task_name) == (job, "topk-k_8-x16")
    assert launch([job], ["l0"])[0].return_value == 12.0
    assert launch([job], ["l0", "ce_recovered"])[0].return_value == (12.0, 0.9)
    with pytest.raises(ConfigError, match="nope is not a metric"):
        launch([job], ["nope"])


def test_results_are_in_the_order_of_the_jobs(launch: Launch, training: Any) -> None:
    jobs = [["sae=topk"], ["sae=gated"], ["sae=topk", "seed=0"], ["sae=standard", "data.seed=1"]]
    names = [result.task_name for result in launch(jobs, None)]
    assert names == ["topk-l0_32-x16", "gated-l0_32-x16", "topk-l0_32-x16", "standard-l0_32-x16"]


def test_a_later_batch_neither_clashes_with_an_earlier_one_nor_trains_it_again(launch: Launch, training: Any) -> None:
    launch([["training.lr=1e-3"]], None)
    (second,) = launch([["training.lr=2e-3"]], None)
    assert training.groups == [["gated-l0_32-x16"], [second.task_name]]
    assert second.task_name.startswith("gated-l0_32-x16-")


def test_a_failed_job_raises_when_its_value_is_asked_for(launch: Launch, training: Any) -> None:
    training.failing = {"gated-l0_32-x16": "diverged"}
    (result,) = launch([[]], None)
    assert result.status == JobStatus.FAILED
    with pytest.raises(SweepFailed, match="gated-l0_32-x16: diverged"):
        _ = result.return_value


def test_one_job_that_cannot_be_stops_the_batch_before_anything_is_written(
    launch: Launch, training: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"sae\.k: gated has no such key"):
        launch([["sae=topk", "sae.k=8"], ["sae=gated", "sae.k=8"]], None)
    assert list(tmp_path.iterdir()) == []
