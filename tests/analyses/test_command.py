"""`sae-sweep eval`: ours and another package's analyses of a sweep that was trained, over the same passes."""

import inspect
import json
import sys
from collections.abc import Iterator
from importlib import invalidate_caches
from pathlib import Path

import pytest

from sae_sweep.cli import main
from sae_sweep.host import kinds
from sae_sweep.launch.local import run_sweep
from sae_sweep.model.suffix import Suffix
from tests.evaluation.groups import planned, small

THEIRS = '''
from dataclasses import dataclass

from sae_sweep.analyses.session.result import Number, Result


@dataclass(frozen=True)
class Config:
    times: float = 1.0


def run(session, saes, config):
    """The codes above 0 per counted position, and the spliced passes that were seen."""
    entries, positions, passes = dict.fromkeys((sae.label for sae in saes), 0), 0, 0
    while (batch := (yield)) is not None:
        positions += int(next(iter(batch.rows.places.values())).counted_RT.sum())
        for label in batch.saes:
            entries[label] += len(batch.codes(label).value_N)
            passes += len(batch.spliced(label))
    l0 = {label: {"l0": Number(config.times * n / positions, None, positions)} for label, n in entries.items()}
    return Result({"passes": Number(passes, None, 1)}, l0)
'''


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that offers one analysis under two names."""
    package, information = tmp_path / "analyses_elsewhere", tmp_path / "analyses_elsewhere-1.dist-info"
    package.mkdir()
    information.mkdir()
    (package / "__init__.py").touch()
    (package / "firing.py").write_text(THEIRS)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: analyses_elsewhere\nVersion: 1\n")
    points = "firing = analyses_elsewhere.firing\nagain = analyses_elsewhere.firing\n"
    (information / "entry_points.txt").write_text(f"[sae_sweep.analyses]\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path))
    invalidate_caches()
    kinds._installed.cache_clear()
    yield
    kinds._installed.cache_clear()
    for name in [name for name in sys.modules if name.startswith("analyses_elsewhere")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, llama_folder: Path) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    (outputs / "text.txt").write_text(inspect.getsource(inspect))
    shared = [*small(outputs, llama_folder, outputs / "text.txt"), "training.tokens=960"]
    shared += ["sae=topk", "sae.k=3", "training.batch_size=48"]
    made = planned(shared, {"first": ["seed=0"], "second": ["seed=1"], "other": ["seed=0", "sae.k=5"]})
    assert [one.state for one in run_sweep(list(made.configs.values()))] == ["finished"] * 3
    return made.folder.root


def read(folder: Path, name: str) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = json.loads((folder / "analyses" / f"{name}.json").read_text())
    return found


def test_analyses_of_one_command_share_their_passes(
    elsewhere: None, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = {"clean": 0, "_run": 0}

    def count(name: str) -> None:
        real = getattr(Suffix, name)

        def counted(*arguments: object) -> object:
            passes[name] += 1
            return real(*arguments)

        monkeypatch.setattr(Suffix, name, counted)

    count("clean")
    count("_run")
    assert main(["eval", str(trained), "--analysis", "matching,firing,again", "analysis.again.times=2"]) == 0
    batches = 3  # 640 tokens in rows of 16, sixteen at a time
    assert passes == {"clean": batches, "_run": batches * 3 + 1}, "one more to check the site"
    found = read(trained, "firing")
    assert found["numbers"]["passes"]["value"] == batches * 3
    for label in found["members"]:
        metrics = json.loads((trained / label / "metrics.json").read_text())
        assert read(trained / label, "firing")["numbers"]["l0"]["value"] == pytest.approx(metrics["l0"], rel=1e-12)
        assert read(trained / label, "again")["numbers"]["l0"]["value"] == pytest.approx(2 * metrics["l0"], rel=1e-12)


def test_members_that_differ_in_their_seed_are_matched(trained: Path) -> None:
    assert main(["eval", str(trained), "--analysis", "matching"]) == 0
    members = read(trained, "matching")["members"]
    assert len(members) == 2
    for own, (other, number) in ((own, *numbers.items()) for own, numbers in members.items()):
        assert other in members
        assert own != other
        assert 0 < number["value"] <= 1  # type: ignore[index]
    assert main(["eval", str(trained), "--analysis=matching", "analysis.matching.pairs=site"]) == 0
    assert {len(numbers) for numbers in read(trained, "matching")["members"].values()} == {2}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--analysis", "machting"], "--analysis=machting: no such analysis; known: matching"),
        (["--analysis=matching", "analysis.matching.pair=site"], "analysis.matching.pair: no such key; its keys are"),
        (["--analysis=matching", "analysis.matching.pairs=x"], "analysis.matching.pairs=x is not one of seed, site"),
        (["--analysis=matching", "analysis.others.pairs=x"], "analysis.others: not asked for; name it in --analysis"),
        (["--analysis=matching", "pairs=x"], "eval: pairs=x is neither --analysis NAME nor analysis.NAME.KEY=VALUE"),
    ],
)
def test_what_cannot_be_asked(trained: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(trained), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sae-sweep: error: {said}")
