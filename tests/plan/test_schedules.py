"""Schedules by hand, and what must hold for every schedule."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_sweep.plan.schedules import Schedule, resolve_schedule
from tests.training.fabricate import D, member_configuration

PAPER = Schedule(
    total_steps=300_000,
    lr=3e-4,
    beta1=0.0,
    beta2=0.999,
    eps=1e-8,
    clip=0.0,
    lr_warmup_steps=1_000,
    lr_decay_steps=0,
    sparsity_warmup_steps=0,
    resample_steps=(25_000, 50_000, 75_000, 100_000),
    dead_window_steps=12_500,
    hold_from=240_000,
)


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 0.1),
        (250, 0.1 + 0.9 * (1 - 0.5**0.5) / 2),  # cos(pi / 4)
        (500, 0.55),
        (1_000, 1.0),
        (24_999, 1.0),
        (25_000, 0.1),  # the step after resampling: the 25,000 before it are done
        (25_500, 0.55),
        (26_000, 1.0),
        (49_999, 1.0),
        (50_000, 0.1),
        (100_000, 0.1),
        (100_750, 0.1 + 0.9 * (1 + 0.5**0.5) / 2),
        (101_000, 1.0),
        (299_999, 1.0),
    ],
)
def test_lr_of_the_gated_paper(step: int, factor: float) -> None:
    """lr (0.1 + 0.9 (1 - cos(pi t / 1000)) / 2), t counted from the start and anew from each resampling."""
    assert PAPER.lr_at(step) == pytest.approx(3e-4 * factor, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.1), (5, 0.55), (10, 1.0), (79, 1.0), (80, 1.0), (90, 0.5), (95, 0.25), (99, 0.05)]
)
def test_lr_falls_linearly_over_the_last_fifth(step: int, factor: float) -> None:
    schedule = replace(PAPER, total_steps=100, lr_warmup_steps=10, lr_decay_steps=20, resample_steps=())
    assert schedule.lr_at(step) == pytest.approx(3e-4 * factor, rel=1e-12)


def test_rewarm_and_decay_multiply() -> None:
    schedule = replace(PAPER, total_steps=100, lr_warmup_steps=10, lr_decay_steps=100, resample_steps=(50,))
    assert schedule.lr_at(55) == pytest.approx(3e-4 * 0.55 * 0.45, rel=1e-12)


def test_no_warmup_is_full_lr_at_once() -> None:
    schedule = replace(PAPER, lr_warmup_steps=0)
    assert [schedule.lr_at(step) for step in (0, 25_000, 299_999)] == [3e-4] * 3


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (1, 0.1), (5, 0.5), (10, 1.0), (11, 1.0), (300_000, 1.0)])
def test_sparsity_ramp(step: int, share: float) -> None:
    assert replace(PAPER, sparsity_warmup_steps=10).sparsity_at(step) == pytest.approx(share, rel=1e-15)


def test_no_sparsity_ramp_is_full_at_once() -> None:
    assert PAPER.sparsity_at(0) == 1.0


def resolved(kind: str, steps: int, **overrides: Any) -> Schedule:
    config = member_configuration(kind, training_tokens=float(4096 * steps), training_batch_size=4096, **overrides)
    assert config.sae.width is not None
    return resolve_schedule(config, D, config.sae.width)


def test_gated_run_of_the_papers_length_is_the_papers() -> None:
    assert resolved("gated", 300_000) == PAPER


def test_long_runs_do_not_stretch_what_the_paper_gives_in_steps() -> None:
    assert replace(resolved("gated", 900_000), total_steps=300_000, hold_from=240_000) == PAPER


def test_april_run_of_the_papers_length() -> None:
    found = resolved("april", 200_000, sae_resample=False)
    assert (found.lr, found.beta1, found.beta2, found.clip) == (5e-5, 0.9, 0.999, 1.0)
    assert found.lr_decay_steps == 40_000  # the last fifth
    assert found.sparsity_warmup_steps == 10_000  # the first twentieth
    assert found.resample_steps == ()


def test_topk_recipe() -> None:
    found = resolved("topk", 100_000, sae_width=2**16)
    assert found.lr == pytest.approx(1e-4)  # 2e-4 / sqrt(2^16 / 2^14)
    assert (found.beta1, found.beta2, found.eps) == (0.9, 0.999, 6.25e-10)
    assert found.resample_steps == ()


def test_short_run_is_a_small_copy() -> None:
    found = resolved("gated", 800)
    assert found.resample_steps == (100, 200, 300, 400)
    assert found.dead_window_steps == 50
    assert (found.lr_warmup_steps, found.hold_from) == (40, 640)


def test_own_values_win() -> None:
    own = {"lr": 1e-2, "beta1": 0.5, "beta2": 0.9, "eps": 1e-3, "clip": 0.0, "lr_decay_fraction": 0.5}
    found = resolved("april", 100, training_lr_warmup_steps=30, **{f"training_{k}": v for k, v in own.items()})
    assert (found.lr, found.beta1, found.beta2, found.eps, found.clip) == (1e-2, 0.5, 0.9, 1e-3, 0.0)
    assert (found.lr_decay_steps, found.lr_warmup_steps) == (50, 30)


@given(
    kind=st.sampled_from(["standard", "april", "gated", "topk"]),
    steps=st.integers(1, 500_000),
    warmup=st.none() | st.integers(0, 10_000),
    ramp=st.none() | st.integers(0, 10_000),
    decay=st.none() | st.floats(0, 1),
    at=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=150, deadline=None)
def test_every_schedule(
    kind: str, steps: int, warmup: int | None, ramp: int | None, decay: float | None, at: float
) -> None:
    own = {"lr_warmup_steps": warmup, "sparsity_warmup_steps": ramp, "lr_decay_fraction": decay}
    schedule = resolved(kind, steps, **{f"training_{key}": value for key, value in own.items()})
    assert schedule.total_steps == steps
    for step in {0, int(at * steps), steps - 1, *(s for s in schedule.resample_steps if s < steps)}:
        assert 0 < schedule.lr_at(step) <= schedule.lr * (1 + 1e-12)
        assert 0 <= schedule.sparsity_at(step) <= 1
    assert all(0 < s <= steps / 2 for s in schedule.resample_steps)
    assert list(schedule.resample_steps) == sorted(set(schedule.resample_steps))
    assert 0 <= schedule.hold_from <= 0.8 * steps
    assert max(schedule.lr_warmup_steps, schedule.lr_decay_steps, schedule.sparsity_warmup_steps) <= steps
    assert schedule.dead_window_steps >= 1


def test_a_cosine_falls_over_the_last_share_only() -> None:
    schedule = replace(
        PAPER, total_steps=100, lr_warmup_steps=0, lr_decay_steps=40, resample_steps=(), lr_schedule="cosine"
    )
    found = [schedule.lr_at(step) / schedule.lr for step in (0, 60, 70, 80, 90)]
    assert found == pytest.approx([1, 1, 0.5 + 2**-1.5, 0.5, 0.5 - 2**-1.5], rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "own", "steps", "shape"),
    [
        ("gated", {}, 0, "linear"),
        ("april", {}, 20, "linear"),
        ("april", {"training_lr_schedule": "constant"}, 0, "linear"),
        ("april", {"training_lr_schedule": "cosine"}, 20, "cosine"),
        ("gated", {"training_lr_schedule": "cosine"}, 100, "cosine"),
        ("gated", {"training_lr_schedule": "linear"}, 100, "linear"),
        ("gated", {"training_lr_schedule": "cosine", "training_lr_decay_fraction": 0.3}, 30, "cosine"),
    ],
)
def test_what_the_lr_schedule_stands_for(kind: str, own: dict[str, Any], steps: int, shape: str) -> None:
    """A shape without a share falls all along, but for a recipe that has one."""
    found = resolved(kind, 100, **own)
    assert (found.lr_decay_steps, found.lr_schedule) == (steps, shape)
