"""shipped.py: what is compared with what, from points by hand, and what is run again."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.bench import shipped as script
from scripts.bench.sweeps import OURS


def points(**l0s: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"member": name, "l0": l0, "ce_recovered": ce} for name, (l0, ce) in l0s.items()]


def ours(*values: float) -> dict[str, Any]:
    return {
        str(seed): points(**{"gated-l0_8-w64": (8.0, ce), "gated-l0_32-w64": (32.0, 0.99)})
        for seed, ce in enumerate(values)
    }


FOUND = {
    f"{OURS} null": {"seeds": ours(0.95, 0.93)},
    "sae-lens/gated": {"seeds": {str(seed): points(a=(4.0, 0.9), b=(16.0, 0.96)) for seed in (0, 1, 2)}},
}


def test_a_peer_is_read_off_its_frontier_at_our_l0() -> None:
    assert sorted(script.differences(FOUND, "gated", 8, "null")) == pytest.approx([0.0, 0.02])
    assert script.differences(FOUND, "gated", 32, "null") == [], "beyond what the peer reaches"
    assert script.differences(FOUND, "topk", 8, "null") == script.differences(FOUND, "gated", 8, "1e-3") == []


def test_the_table_has_the_standard_error_over_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    script.print_differences(FOUND, ["gated"], [8.0, 32.0], "null")
    line = next(line for line in capsys.readouterr().out.splitlines() if "sae-lens gated" in line)
    assert line.split()[-3:] == ["+0.0100", "±0.0100", "-"]


def test_every_pair_has_coefficients() -> None:
    assert set(script.PAIRS.values()) == set(script.COEFFICIENTS)
    assert script.part_names(["gated", "gated_decoder_norm", "jumprelu_anthropic"]) == [OURS, "sae-lens/gated"]


def test_a_seed_that_is_there_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, int]] = []

    def trained(sweep: script.Shipped, part: str, work: Path) -> list[dict[str, Any]]:
        ran.append((part, sweep.seed))
        return points(a=(4.0, 0.9))

    monkeypatch.setattr(script, "trained", trained)
    out = tmp_path / "shipped.json"
    common = ["--model", "demo", "--tokens", "t.npz", "--heldout", "h.npz", "--only", "gated", "--out", str(out)]
    assert script.main([*common, "--seeds", "0", "--lr", "null"]) == 0
    assert script.main([*common, "--seeds", "0,1", "--lr", "1e-3"]) == 0
    peer = [("sae-lens/gated", 0), ("sae-lens/gated", 1)]
    assert sorted(ran) == sorted([(OURS, 0), (OURS, 0), (OURS, 1), *peer])
    kept = json.loads(out.read_text(encoding="utf-8"))["architectures"]
    assert {key: list(entry["seeds"]) for key, entry in kept.items()} == {
        "ours null": ["0"],
        "ours 1e-3": ["0", "1"],
        "sae-lens/gated": ["0", "1"],
    }
    assert str(tmp_path) not in out.read_text(encoding="utf-8")
    assert script.main([*common, "--seeds", "0", "--lr", "null", "--steps", "100"]) == 0
    assert ran[-2:] == [(OURS, 0), ("sae-lens/gated", 0)], "other settings are measured anew"
