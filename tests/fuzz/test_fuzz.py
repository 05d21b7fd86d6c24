"""Whatever is given: an exit code that means something, one line where it is refused, nothing written then."""

import re
import resource
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from hydra.core.global_hydra import GlobalHydra

from sae_sweep.cli import main
from tests.fuzz.cases import Case, case

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
MOST_SECONDS, MOST_KILOBYTES = 60.0, 2 * 2**20

Check = Callable[[int], None]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Check:
    def checked(seed: int) -> None:
        folder = tmp_path / str(seed)
        folder.mkdir()
        monkeypatch.chdir(folder)
        GlobalHydra.instance().clear()
        _run(seed, case(seed), folder)

    def _run(seed: int, given: Case, folder: Path) -> None:
        given.prepare(folder)
        before = sorted(folder.rglob("*"))
        capfd.readouterr()
        start = monotonic()
        code = main(given.arguments)
        out, err = capfd.readouterr()
        what = f"seed {seed}: {given.arguments} gave {code}: {out[-300:]!r} {err[-600:]!r}"
        assert code in (0, 1, 2), what
        assert not CONTROL.search(out + err), what
        assert monotonic() - start < MOST_SECONDS, what
        assert code != 2 or (err.count("\n") == 1 and err.startswith("sae-sweep: error: ") and len(err) < 2000), what
        assert code == 0 or sorted(folder.rglob("*")) == before, what

    return checked


@pytest.mark.parametrize("tens", range(10))
def test_ten_cases(tens: int, check: Check) -> None:
    for seed in range(10 * tens, 10 * tens + 10):
        check(seed)


@pytest.mark.evidence
def test_two_thousand_cases(check: Check) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(100, 2100):
        check(seed)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KILOBYTES
