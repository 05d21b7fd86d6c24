"""What members on synthetic activations have of the true latents, counted anew from codes and weights."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from sae_sweep.analyses import recovery
from sae_sweep.analyses.recovery import Config, run
from sae_sweep.analyses.session import kept
from sae_sweep.analyses.session.finished import finished_saes
from sae_sweep.analyses.session.session import Session
from sae_sweep.cli import main
from sae_sweep.data.toy import ToyData
from sae_sweep.launch.local import run_sweep
from tests.training.run.toy_sweeps import config

OWN = "topk-k_3-w40"


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members, with milestones."""
    shared = (f"output_dir={tmp_path_factory.mktemp('toys')}", "name=toys", "evaluation.every=null")
    shared += ("training.milestones=[480,2400]",)
    members = [("sae=topk", "sae.k=3"), ("sae=standard", "sae.l0=3")]
    made = run_sweep([config(*shared, *own) for own in members])
    assert {one.state for one in made} == {"finished"}
    return made[0].folder.parent


def test_counted_anew(toys: Path) -> None:
    saes = finished_saes(toys)
    found = run(Session.of(saes), saes, Config(3, 0))
    for sae in saes:
        numbers, data = found.members[sae.label], ToyData(sae.member.config.data.toy, 0)
        x_BD, codes_BG = (torch.cat(each) for each in zip(*data.activations("heldout", 0, 320), strict=True))
        active_BG, fires_BF = codes_BG > 0, sae.sae.encode(x_BD) > 0
        alive = fires_BF.any(0).nonzero().squeeze(1)
        unit_AD = torch.nn.functional.normalize(sae.sae.tensors["W_dec"][alive], dim=1)
        cosine_GA = data.truth_GD @ unit_AD.T
        rows, columns = linear_sum_assignment(-cosine_GA.abs().numpy())
        assert numbers["mcc"].value == pytest.approx(cosine_GA.abs()[rows, columns].mean().item(), rel=1e-5)
        assert numbers["mcc"].n == len(rows)
        f1 = {}
        for g in range(30):
            guess_B = fires_BF[:, alive[columns[list(rows).index(g)]]] if g in rows else torch.zeros(320).bool()
            right = (guess_B & active_BG[:, g]).sum().item()
            if active_BG[:, g].any():
                f1[g] = 2 * right / (guess_B.sum() + active_BG[:, g].sum()).item()
        assert numbers["f1"].value == pytest.approx(sum(f1.values()) / len(f1), rel=1e-5)
        assert numbers["f1"].n == len(f1)
        metrics = json.loads((sae.folder / "metrics.json").read_text())
        assert numbers["cosine"].value == pytest.approx(metrics["mmcs_truth"], rel=1e-6)
        order = sorted(range(30), key=lambda g: (-active_BG[:, g].sum().item(), g))
        best_G = cosine_GA.amax(1)
        for name, part in (("rank_1_10", order[:10]), ("rank_11_20", order[10:20]), ("rank_21_30", order[20:])):
            assert numbers[f"cosine_{name}"].value == pytest.approx(best_G[part].mean().item(), rel=1e-5)
            assert numbers[f"f1_{name}"].value == pytest.approx(
                sum(f1[g] for g in part if g in f1) / sum(g in f1 for g in part), rel=1e-5
            )
        assert numbers["cosine"].control < numbers["cosine"].value
        assert numbers["mcc"].standard_error > 0


def test_over_training(toys: Path) -> None:
    assert main(["eval", str(toys), "--analysis=recovery", "analysis.recovery.ranks=2"]) == 0
    numbers = json.loads((toys / OWN / "analyses" / "recovery.json").read_text())
    for tokens in (480, 2400):
        metrics = json.loads((toys / OWN / "milestones" / str(tokens) / "metrics.json").read_text())
        assert numbers["numbers"][f"cosine_at_{tokens}"]["value"] == pytest.approx(metrics["mmcs_truth"], rel=1e-6)
        assert numbers["numbers"][f"f1_at_{tokens}"]["n"] > 0
        halves = numbers["details"][str(tokens)]
        assert sum(halves.values()) / 2 == pytest.approx(metrics["mmcs_truth"], rel=1e-6)
    found = json.loads((toys / "analyses" / "recovery.json").read_text())
    assert [one["name"] for one in found["figure"]["series"]] == ["rank 1 15", "rank 16 30"]
    others = json.loads((toys / "standard-l0_3-w40" / "analyses" / "recovery.json").read_text())["details"]
    mean = (numbers["details"]["480"]["rank_1_15"] + others["480"]["rank_1_15"]) / 2
    assert found["figure"]["series"][0]["y"][0] == pytest.approx(mean)
    assert found["figure"]["series"][0]["x"] == [480, 2400, 4000]


def test_by_rank_without_milestones(toys: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(toys, tmp_path / "copied", ignore=shutil.ignore_patterns("milestones"))
    saes = finished_saes(copied, ["standard-l0_3-w40"])
    figure = run(Session.of(saes), saes, Config(2, 0)).figure
    assert figure is not None
    assert [(one.name, one.x) for one in figure.series] == [
        ("standard-l0_3-w40", [8, 23]),
        ("random directions", [8, 23]),
    ]


def test_one_that_was_killed_goes_on(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies after the fourth of ten parts of the held-out rows, and reads the other six."""
    monkeypatch.setattr(kept, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr("sae_sweep.data.toy._CODE_ELEMENTS", 30 * 32)
    saes = finished_saes(toys, [OWN])
    session = Session.of(saes)
    whole = run(session, saes, Config(2, 0)).members
    left, added = 12, recovery.Firing.add

    def dies(self: object, *arguments: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        added(self, *arguments)

    monkeypatch.setattr(recovery.Firing, "add", dies)
    again = replace(session, kept=kept.Kept(toys / "kept.safetensors", "a"))
    with pytest.raises(KeyboardInterrupt):
        run(again, saes, Config(2, 0))
    monkeypatch.setattr(recovery.Firing, "add", added)
    calls = []
    monkeypatch.setattr(recovery.Firing, "add", lambda self, *rest: (calls.append(1), added(self, *rest))[1])
    once_more = replace(session, kept=kept.Kept(toys / "kept.safetensors", "a"))
    assert run(once_more, saes, Config(2, 0)).members == whole
    assert len(calls) == 3 * 10 - 12, "the member and two milestones, four of whose parts were read"
    (toys / "kept.safetensors").unlink()


def test_what_cannot_be_asked(toys: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(trained, tmp_path / "copied")
    for root, word, said in (
        (toys, "ranks=0", ".ranks=0 must be at least 1"),
        (tmp_path / "copied", "ranks=2", ": nobody knows the true latents that topk-l0_3-w24-L1-s0 was trained on;"),
    ):
        assert main(["eval", str(root), "--analysis=recovery", f"analysis.recovery.{word}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"sae-sweep: error: analysis.recovery{said}")
