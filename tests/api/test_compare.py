"""Two members, and two sweeps, of a real sweep compared: what is printed against the files."""

import io
import json
import re
import shutil
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import sae_sweep as ss
from sae_sweep import cli
from sae_sweep.reporting.compare import compare
from tests.reporting.test_report import Page

ONE, OTHER = "topk-l0_8-w256", "topk-l0_16-w256"


def told(*folders: Path) -> str:
    text = io.StringIO()
    compare([str(folder) for folder in folders], text)
    return text.getvalue()


def numbers(line: str) -> list[float]:
    return [float(word) for word in re.findall(r"(?<=\s)[+-]?[\d.]+(?=\s|$)", line)]


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def test_two_members_are_compared_in_pairs(sweep: ss.Sweep) -> None:
    text = told(sweep.folder / ONE, sweep.folder / OTHER)
    assert re.search(r"sae\.l0 +8 +16$", text, re.M)
    assert "±: paired, a jackknife over the same 63 held-out rows" in text
    mine, theirs = metrics(sweep.folder / ONE), metrics(sweep.folder / OTHER)
    line = next(line for line in text.splitlines() if line.startswith("CE recovered  "))
    a, b, difference, error = numbers(line)
    assert (a, b) == (round(mine["ce_recovered"], 4), round(theirs["ce_recovered"], 4))
    assert difference == pytest.approx(theirs["ce_recovered"] - mine["ce_recovered"], abs=1e-5)
    one, other = (load_file(sweep.folder / label / "rows.safetensors") for label in (ONE, OTHER))
    gain_R, of_R = one["ce"] - other["ce"], one["ce_zero"] - one["ce_clean"]
    left = [((gain_R.sum() - g) / (of_R.sum() - o)).item() for g, o in zip(gain_R, of_R, strict=True) if o != 0]
    mean = sum(left) / len(left)
    expected = sqrt((len(left) - 1) / len(left) * sum((value - mean) ** 2 for value in left))
    assert error == pytest.approx(expected, abs=1e-5)
    assert error < sqrt(mine["ce_recovered_se"] ** 2 + theirs["ce_recovered_se"] ** 2), "what both share cancels"
    assert line.rstrip().endswith("B is better") == (difference > 2 * error)


def test_a_member_beside_itself_differs_in_nothing(sweep: ss.Sweep) -> None:
    text = told(sweep.folder / ONE, sweep.folder / ONE)
    assert "config: nothing differs" in text
    assert "better" not in text
    assert numbers(next(line for line in text.splitlines() if line.startswith("KL  ")))[2:] == [0.0, 0.0]


@pytest.fixture
def longer(sweep: ss.Sweep, tmp_path: Path) -> Path:
    """The sweep again, said to be trained for longer, one member better by a hundredth and another without rows."""
    folder = tmp_path / "longer"
    shutil.copytree(sweep.folder, folder)
    record = json.loads((folder / "sweep.json").read_text())
    for entry in record["members"].values():
        entry["config"]["training"]["tokens"] = 4e4
    (folder / "sweep.json").write_text(json.dumps(record))
    better = metrics(folder / ONE)
    (folder / ONE / "metrics.json").write_text(json.dumps(better | {"ce_recovered": better["ce_recovered"] + 0.01}))
    (folder / OTHER / "rows.safetensors").unlink()
    return folder


def test_every_member_can_be_compared(sweep: ss.Sweep, capsys: Any) -> None:
    """One whose thresholds were set to its L0 at the end too: metrics.json says how, in a word."""
    said = [json.loads((sweep.folder / label / "metrics.json").read_text())["threshold_mode"] for label in sweep]
    assert "quantile" in said
    for label in sweep:
        assert cli.main(["compare", str(sweep.folder / label), str(sweep.folder / label)]) == 0
    assert "threshold" not in capsys.readouterr().out


def test_two_sweeps_are_compared_member_by_member(sweep: ss.Sweep, longer: Path) -> None:
    text = told(sweep.folder, longer)
    assert re.search(r"training\.tokens +20000 +40000$", text, re.M)
    lines = text.splitlines()
    assert "+0.01000 ±0.00000" in next(line for line in lines if line.startswith(ONE))
    assert "±: paired, a jackknife over the same 63 held-out rows" in lines
    assert any("which is too wide; B has no rows.safetensors" in line for line in lines)
    assert "without a partner" not in text
    at = next(line for line in lines if line.startswith("topk, L0 8 "))
    assert numbers(at)[3] == pytest.approx(0.01, abs=1e-4), "its frontier, at the member's own L0"


@pytest.mark.parametrize("label", [ONE, OTHER])
def test_a_member_finds_itself_among_those_of_a_sweep(sweep: ss.Sweep, label: str) -> None:
    text = told(sweep.folder / label, sweep.folder)
    assert f"{label} : " not in text, "another, which differs in more"
    assert "without a partner: 0 of A, 3 of B" in text
    assert "of A, -" not in told(sweep.folder, sweep.folder / label)


def test_partners_are_asked_the_same_whatever_the_order_and_the_rest_of_a_grid(sweep: ss.Sweep, tmp_path: Path) -> None:
    """Of a sweep and the same sweep, every member's partner is itself: all differences are 0."""
    folder = tmp_path / "again"
    shutil.copytree(sweep.folder, folder)
    record = json.loads((folder / "sweep.json").read_text())
    for kept in (list(reversed(record["members"])), [label for label in record["members"] if "l0_16" in label]):
        members = {label: record["members"][label] for label in kept}
        (folder / "sweep.json").write_text(json.dumps(record | {"members": members}))
        text = told(sweep.folder, folder)
        pairs = [line for line in text.splitlines() if re.match(r"(topk|gated)-l0_\d+-w256 ", line)]
        assert {line.split()[0] for line in pairs} == set(kept)
        assert all(re.findall(r"[+-][\d.]+", line.partition(" ")[2])[0] == "+0.00" for line in pairs), "of L0"
        assert ("without a partner: 2 of A, 0 of B" in text) == (len(kept) == 2)
        assert ("config: nothing differs" in text) == (len(kept) == 4)


def test_what_cannot_be_compared_is_refused(sweep: ss.Sweep, tmp_path: Path, capsys: Any) -> None:
    for arguments, said in (
        ([str(sweep.folder)], "compare: takes two folders"),
        ([str(sweep.folder), str(tmp_path)], "is neither a sweep (no sweep.json) nor a member of one"),
        ([str(sweep.folder), str(sweep.folder / "nobody")], "has no finished member; train it first"),
    ):
        assert cli.main(["compare", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_a_report_looks_at_latents_where_it_is_asked_to(sweep: ss.Sweep, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "looked"
    shutil.copytree(sweep.folder, folder)
    assert cli.main(["report", str(folder), "--latents", "3"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("open ")
    data = json.loads(Page((folder / "report.html").read_text(encoding="utf-8")).scripts["data"])
    latents = data["sections"]["member"]["latents"]
    assert latents.keys() == {f"{one}-l0_{l0}-w256" for one in ("topk", "gated") for l0 in (8, 16)}
    found = latents[ONE]["latents"]
    assert len(found) == 3
    sae = sweep[ONE]
    context = found[0]["quantiles"][0]["contexts"][0]
    largest = max(one.activation for one in sae.top_contexts(found[0]["id"], n=3).top)
    assert context["activation"] == pytest.approx(largest, rel=0.01)
    assert context["strengths"][context["at"]] == "9"
    [near, cosine] = found[0]["neighbours"][0]
    rows = sae.W_dec / sae.W_dec.norm(dim=1, keepdim=True)
    assert (rows[found[0]["id"]] @ rows[near]).item() == pytest.approx(cosine, abs=0.006)
