"""What one member, or one value, must not do to its group."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_sweep.activations.block import Block
from sae_sweep.activations.stream import ActivationStream
from sae_sweep.config import values
from sae_sweep.errors import ConfigError
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.training.run.opening import open_group
from sae_sweep.training.step.bank import TrainedBank
from tests.evaluation.groups import planned, small

TOPK = ("sae=topk", "sae.k=4")


@pytest.fixture
def shared(tmp_path: Path, llama_folder: Path, text_file: Path) -> list[str]:
    return [*small(tmp_path, llama_folder, text_file), "training.batch_size=48"]


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configs may have numbers that no run survives a step of."""
    monkeypatch.setattr(values, "LARGEST", 10**39)


def train_topk(overrides: list[str]) -> dict[str, Any] | None:
    made = planned(overrides, {"topk": TOPK})
    return open_group(made.group).run(made.folder)[made.label("topk")].metrics


@pytest.mark.usefixtures("any_size")
def test_a_member_that_diverges_at_the_last_step_fails_alone(shared: list[str]) -> None:
    """Its loss was finite when last looked at; only its metrics show it."""
    made = planned(
        [*shared, "training.lr_warmup_steps=0", "training.tokens=48"],
        {"diverging": ("sae=standard", "sae.l1=1", "training.lr=1e38"), "healthy": TOPK},
    )
    results = open_group(made.group).run(made.folder)
    assert results[made.label("healthy")].reason is None
    healthy = json.loads((made.member_folder("healthy") / "metrics.json").read_text())
    assert healthy == results[made.label("healthy")].metrics
    assert results[made.label("diverging")].reason
    assert not (made.member_folder("diverging") / "metrics.json").exists()


def test_weights_that_are_no_numbers_fail_a_member_though_no_metric_shows_it(
    shared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A latent that never fires takes no part in any sum."""
    real = TrainedBank.inference

    def broken(self: TrainedBank, index: int) -> InferenceSae:
        sae = real(self, index)
        tensors = {name: tensor.clone() for name, tensor in sae.tensors.items()}
        tensors["b_enc"][0], tensors["W_dec"][0] = -1e9, torch.nan
        return replace(sae, tensors=tensors)

    monkeypatch.setattr(TrainedBank, "inference", broken)
    made = planned([*shared, "training.tokens=48"], {"topk": TOPK})
    result = open_group(made.group).run(made.folder)[made.label("topk")]
    assert result.reason == "it diverged: its W_dec are not finite"
    assert not (made.member_folder("topk") / "metrics.json").exists()


@pytest.mark.usefixtures("any_size")
def test_a_diverging_member_fails_alone(shared: list[str]) -> None:
    """Noticed on the way: frozen, marked failed, without metrics."""
    made = planned(
        [*shared, "training.lr_warmup_steps=0", "training.tokens=960", "tracking.log_every=1"],
        {"diverging": ("sae=standard", "sae.l1=1", "training.lr=1e30"), "healthy": TOPK},
    )
    results = open_group(made.group).run(made.folder)
    assert results[made.label("healthy")].reason is None
    assert results[made.label("diverging")].metrics is None
    assert results[made.label("diverging")].reason
    assert not (made.member_folder("diverging") / "metrics.json").exists()


@pytest.mark.usefixtures("any_size")
def test_a_diverging_member_is_judged_on_the_way(shared: list[str]) -> None:
    """Evaluations during training meet a member whose loss nobody has looked at since it diverged."""
    made = planned(
        [*shared, "training.lr_warmup_steps=0", "training.tokens=1440", "evaluation.every=480"],
        {"diverging": ("sae=standard", "sae.l1=1", "training.lr=1e38"), "healthy": TOPK},
    )
    results = open_group(made.group).run(made.folder)
    assert results[made.label("healthy")].reason is None
    assert results[made.label("diverging")].reason
    for name in ("healthy", "diverging"):
        for line in (made.member_folder(name) / "metrics.jsonl").read_text().splitlines():
            json.loads(line, parse_constant=pytest.fail)  # NaN and Infinity are no JSON


def test_a_batch_that_no_block_fills_is_refused(shared: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 16 tokens have 15 that count: a batch of 32 x 16 is never full, and no step is ever taken."""
    blocks: list[Block] = []
    block = ActivationStream.block

    def limited(stream: ActivationStream, index: int) -> Block:
        if len(blocks) == 10:
            pytest.fail("ten blocks were harvested, and no step was taken")
        blocks.append(block(stream, index))
        return blocks[-1]

    monkeypatch.setattr(ActivationStream, "block", limited)
    with pytest.raises(ConfigError, match="batch_size"):
        train_topk([*shared, "training.batch_size=512", "training.tokens=512"])


def test_rows_without_targets_leave_cross_entropy_undefined(shared: list[str]) -> None:
    """A row of two tokens has one that counts, and none after it: no cross-entropy anywhere."""
    metrics = train_topk([*shared, "data.context=2", "data.block_rows=64", "training.tokens=480"])
    assert metrics is not None
    assert (metrics["ce_clean"], metrics["kl"], metrics["ce_recovered"]) == (None, None, None)
    assert metrics["l0"] == 4.0
