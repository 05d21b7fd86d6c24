"""Latents removed from the densest on, by hand, and against members that were trained sparser."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sae_sweep.analyses.prune_dense import Config, dense_latents, remove_until, run, targets_of, without
from sae_sweep.analyses.session.finished import FinishedSae, finished_saes
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.session import Session
from sae_sweep.analyses.session.trained import between
from sae_sweep.kernels.entries import Entries

FREQUENCY = torch.tensor([0.5, 1.0, 0.25, 0.0])


def test_the_fewest_are_removed() -> None:
    """Without latent 1 the others fire 0.75 times a token, without 0 as well 0.25 times."""
    order = FREQUENCY.argsort(descending=True)
    removed = {l0: remove_until(FREQUENCY, order, l0).tolist() for l0 in (2, 1.75, 1, 0.75, 0.5, 0.25, 0.1)}
    assert removed[2] == removed[1.75] == [False] * 4
    assert removed[1] == removed[0.75] == [False, True, False, False]
    assert removed[0.5] == removed[0.25] == [True, True, False, False]
    assert removed[0.1] == [True, True, True, False]


def test_codes_without_some_latents() -> None:
    codes = Entries(torch.tensor([0, 2, 3]), torch.tensor([0, 2, 2]), torch.tensor([1.0, 2.0, 3.0]))
    left = without(codes, torch.tensor([False, False, True]))
    assert [each.tolist() for each in left] == [[0, 1, 1], [0], [1.0]]


def test_what_is_trained_lies_between_points() -> None:
    """On logarithmic axes half way from (1, 1) to (100, 4) is (10, 2)."""
    assert between([(100, 4), (1, 1)], 10) == pytest.approx(2)
    assert between([(100, 4), (1, 1)], 110) is None
    assert between([(8, 3)], 8.05) == 3
    assert between([(8, 3)], 9) is None


def member(label: str, l0: float, frequency: list[float]) -> FinishedSae:
    made = FinishedSae(label, Path(), {"sae.l0": l0, "seed": 0})
    of: dict[str, Any] = made.__dict__
    of["frequency_F"], of["member"] = torch.tensor(frequency), None
    return made


def test_what_is_pruned_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FinishedSae, "knobs", ("sae.l0", "sae.k"))
    dense, sparse = member("a", 3, [1.0, 1.0, 1.0]), member("b", 1, [0.5, 0.5, 0.0])
    assert targets_of(dense, [dense, sparse], None) == [1.0]
    assert targets_of(sparse, [dense, sparse], None) == [0.5, 0.25]
    assert targets_of(dense, [dense, sparse], [5.0, 1.0, 2.0]) == [2.0, 1.0]


def test_lists_of_dense_latents() -> None:
    found = dense_latents(member("a", 1, [0.005, 0.5, 0.05]))
    assert [each["latent"] for each in found["over_1pct"]] == [1, 2]
    assert found["over_10pct"] == [{"latent": 1, "frequency": 0.5}]


def test_in_the_model(trained: Path) -> None:
    saes = finished_saes(trained, ["topk-l0_3-w24-L1-s0", "gated-l0_3-w40-L2-s1"])
    found = {}
    for mean in (False, True):
        session = Session.of(saes)
        asked = {"a": run(session, saes, Config([1.5, 1e-9], mean, 0))}
        found[mean] = read(asked, session.streams.batches)["a"]
    for sae in saes:
        numbers = found[False].members[sae.label]
        own = sae.frequency_F.sum().item()
        fired = remove_until(sae.frequency_F, sae.frequency_F.argsort(descending=True, stable=True), 1.5)
        left = own - sae.frequency_F[fired].sum().item()
        assert numbers["l0_at_1.5"].value == pytest.approx(left, rel=1e-5)
        assert numbers["l0_at_1e-09"].value == 0
        assert numbers["kl_at_1e-09"].value == numbers["kl_at_1e-09"].control, "without all latents the order is none"
        assert numbers["kl_at_1.5"].value > numbers["kl"].value
        assert found[True].members[sae.label]["kl_at_1.5"].value != numbers["kl_at_1.5"].value
        assert found[True].members[sae.label]["kl"] == numbers["kl"]
