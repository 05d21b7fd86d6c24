"""`sae-sweep eval`: ours and another package's analyses of a sweep that was trained, over the same passes."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from sae_sweep.analyses.session import kept
from sae_sweep.analyses.session.command import analyse as asked
from sae_sweep.analyses.session.finished import finished_saes
from sae_sweep.cli import main
from sae_sweep.config.files import config_folder
from sae_sweep.errors import ConfigError
from sae_sweep.host import kinds
from sae_sweep.model.suffix import Suffix

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
        positions += int(batch.rows.places(next(iter(batch.saes.values())).sites).counted_RT.sum())
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


def read(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "analyses" / f"{name}.json").read_text())
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
    assert passes == {"clean": batches, "_run": batches * 16 + 2}, "one more to check each site"
    found = read(trained, "firing")
    assert found["numbers"]["passes"]["value"] == batches * 16
    for label in found["members"]:
        metrics = json.loads((trained / label / "metrics.json").read_text())
        assert read(trained / label, "firing")["numbers"]["l0"]["value"] == pytest.approx(metrics["l0"], rel=1e-12)
        assert read(trained / label, "again")["numbers"]["l0"]["value"] == pytest.approx(2 * metrics["l0"], rel=1e-12)


def test_members_can_be_chosen(trained: Path) -> None:
    chosen = "topk-l0_3-w24-L1-s0,topk-l0_3-w40-L1-s0"
    assert main(["eval", str(trained), "--analysis=matching", "--member", chosen, "analysis.matching.pairs=site"]) == 0
    found = read(trained, "matching")
    assert set(found["members"]) == set(chosen.split(","))
    assert found["figure"]["series"][0]["name"] == "topk-l0_3-w24-L1-s0"
    for own, numbers in found["members"].items():
        assert read(trained / own, "matching")["numbers"] == numbers


THROUGH = """
from dataclasses import dataclass

from sae_sweep.analyses.session.result import Result


@dataclass(frozen=True)
class Config:
    dies_at: int = 99


def run(session, saes, config):
    seen = session.kept.zeros("seen", 2, 64)
    for number in range(2):
        given = 0
        while (batch := (yield)) is not None:
            if (number, batch.first) == (1, config.dies_at):
                raise KeyboardInterrupt
            seen[number, batch.first] += 1
            given += 1
    left = session.kept.once("last", lambda: seen.sum())
    return Result({"given": Number(float(given), None, 1), "seen": Number(left.item(), None, int(seen.max()))})
""".replace("import Result", "import Number, Result")


def test_one_that_was_killed_goes_on(
    trained: Path, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies in the last of three batches of its second pass; the same command reads that one alone."""
    monkeypatch.setattr(kept, "SAVE_SECONDS", 0.0)
    install(
        "killed_once",
        {"__init__.py": "", "through.py": THROUGH},
        "[sae_sweep.analyses]\nthrough = killed_once.through\n",
    )
    command = ["eval", str(trained), "--analysis=through,matching"]
    assert main([*command, "analysis.through.dies_at=32"]) == 130
    state = trained / ".state" / "analyses"
    assert {file.stem for file in state.iterdir()} == {"through", "matching"}
    assert main([*command, "analysis.through.dies_at=32"]) == 130, "it dies there again"
    source = sys.modules["killed_once.through"]
    monkeypatch.setattr(source, "run", outlived(source.run))
    assert main([*command, "analysis.through.dies_at=32"]) == 0
    numbers = read(trained, "through")["numbers"]
    assert numbers["seen"] == {"value": 6.0, "standard_error": None, "n": 1, "control": None}
    assert numbers["given"]["value"] == 1
    assert list(state.iterdir()) == []
    assert main([*command, "analysis.through.dies_at=33"]) == 0
    assert read(trained, "through")["numbers"]["given"]["value"] == 3, "nothing is left of the time before"


def outlived(run: Callable[..., object]) -> Callable[..., object]:
    """The same with nothing to die of, so that its signature stays."""
    return lambda session, saes, config: run(session, saes, replace(config, dies_at=99))


def test_a_model_that_is_another_is_told(trained: Path, tmp_path: Path) -> None:
    record = json.loads((trained / "sweep.json").read_text())
    for entry in record["members"].values():
        for about in entry["content"]["model.path"]["files"].values():
            about["bytes"] += 1
    copied = shutil.copytree(trained, tmp_path / "copied")
    (copied / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"has changed from .* bytes since .* was begun"):
        asked(copied, ["--analysis=inference_topn"], config_folder())


def test_an_earlier_version_s_members_are_read(trained: Path, tmp_path: Path) -> None:
    """One that knew no `tracking.project`, and a key of launcher that is no more."""
    label = "topk-l0_3-w24-L1-s0"
    file = shutil.copytree(trained, tmp_path / "copied") / label / "config.yaml"
    entries = OmegaConf.load(file)
    del entries.tracking["project"]
    entries.launcher.gone = 1
    OmegaConf.save(entries, file)
    (now,), (then,) = (finished_saes(root, [label]) for root in (trained, tmp_path / "copied"))
    assert (then.member.identity, then.member.label) == (now.member.identity, now.member.label)
    del entries.training["tokens"]
    OmegaConf.save(entries, file)
    with pytest.raises(ConfigError, match=r"training.tokens is not given"):
        assert finished_saes(tmp_path / "copied", [label])[0].member


def test_an_unfinished_member_is_told(trained: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(trained, tmp_path / "copied")
    record = json.loads((copied / "sweep.json").read_text())
    record["members"]["topk-l0_3-w24-L1-s0"]["state"] = "interrupted"
    (copied / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="--member=topk-l0_3-w24-L1-s0: it is interrupted; train it to its end first"):
        asked(copied, ["--analysis=matching", "--member=topk-l0_3-w24-L1-s0"], config_folder())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--analysis", "machting"], "--analysis=machting: no such analysis; known: "),
        (["--analysis=matching", "analysis.matching.pair=site"], "analysis.matching.pair: no such key; its keys are"),
        (["--analysis=matching", "analysis.matching.pairs=x"], "analysis.matching.pairs=x is not one of seed, site"),
        (["--analysis=matching", "analysis.others.pairs=x"], "analysis.others: not asked for; name it in --analysis"),
        (
            ["--analysis=matching", "pairs=x"],
            "eval: pairs=x is none of --analysis NAME, --member LABEL, analysis.NAME.KEY=VALUE",
        ),
        (["--analysis=matching", "--member=x"], "--member=x: "),
        (["--analysis=matching", "analysis.matching.near=x"], "analysis.matching.near: "),
        (
            ["--analysis=perturbation", "analysis.perturbation.kinds=[x]"],
            "analysis.perturbation.kinds: x is not one of",
        ),
        (
            ["--analysis=perturbation", "analysis.perturbation.position=15"],
            "analysis.perturbation.position=15: rows have",
        ),
        (["--analysis=inference_topn", "analysis.inference_topn.n=[0]"], "analysis.inference_topn.n=[0] must be"),
        (["--analysis=inference_topn", "analysis.inference_topn.per=x"], "analysis.inference_topn.per=x is not one of"),
        (["--analysis=prune_dense", "analysis.prune_dense.l0=[0]"], "analysis.prune_dense.l0=[0.0] must be"),
    ],
)
def test_what_cannot_be_asked(trained: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(trained), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sae-sweep: error: {said}")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("clusters.within=nan", "must be finite, and at most 1e+18 in size"),
        ("clusters.ngram_tokens=.inf", "must be finite, and at most 1e+18 in size"),
        ("connections.l1=[.nan]", "must be finite, and at most 1e+18 in size"),
        ("connections.together=-1", "must be at least 0, and below 2^31"),
        ("connections.clusters=1000000000000000", "must be at least 0, and below 2^31"),
        ("latents.seed=100000000000000000000", "must be at least 0, and below 2^31"),
        ("inference_topn.n=[4,-2]", "must be at least 0, and below 2^31"),
        ("absorption.fewest=0", "analysis.absorption.fewest=0 must be at least 1"),
    ],
)
def test_numbers_that_nothing_can_go_by(
    asked: str, said: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(trained.rglob("*"))
    assert main(["eval", str(trained), "--analysis", asked.partition(".")[0], f"analysis.{asked}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("sae-sweep: error: analysis.")
    assert line.endswith(said)
    assert sorted(trained.rglob("*")) == before
