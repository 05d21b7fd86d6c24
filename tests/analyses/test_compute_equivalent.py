"""CE of members and of a family of models, by plain hooks in float64."""

import json
import shutil
from dataclasses import replace
from math import exp, log
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_sweep.analyses.compute_equivalent import Config, run
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.session import Session
from sae_sweep.cli import main
from sae_sweep.model.parting import Parting
from tests.analyses.plain import PlainModel, in_float64

OWN = "topk-l0_3-w24-L1-s0"
BASE = Config(None, [], [], None, False, 0)


@pytest.fixture(scope="module")
def family(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """The sweep's model with its last norm times some numbers, which its logits follow: the smaller, the less it is
    wrong. By that number."""
    made = {}
    for times in (0.2, 0.7, 3.0):
        folder = shutil.copytree(llama_folder, tmp_path_factory.mktemp("family") / f"model_{times}")
        weights = load_file(folder / "model.safetensors")
        weights["model.norm.weight"] *= times
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        made[times] = folder
    return made


def test_by_plain_hooks(trained: Path, llama_folder: Path, family: dict[float, Path]) -> None:
    sae = in_float64(trained, OWN)
    session = replace(Session.of([sae]), kept=Kept())
    models = [str(folder) for folder in family.values()]
    config = replace(BASE, models=models, compute=[400.0, 100.0, 1.0])
    result = read({"a": run(session, [sae], config)}, session.streams.batches)["a"]
    found, hook = result.members[OWN], sae.spliced.hook
    plain = PlainModel(llama_folder, trained)
    clean = plain.kl_and_ce(1, lambda x_RTD, _: x_RTD)[1]

    def spliced(x_RTD: torch.Tensor, counted_RT: torch.Tensor) -> torch.Tensor:
        made_RTD = sae.sae.decode(sae.sae.encode(x_RTD.flatten(0, 1))).view_as(x_RTD)
        return torch.where(counted_RT[..., None], made_RTD, x_RTD)

    own = plain.kl_and_ce(1, spliced)[1]
    ces = [plain.in_other(Path(path)).kl_and_ce(1, lambda x_RTD, _: x_RTD)[1] for path in models]
    assert ces == sorted(ces)
    assert ces[0] < clean < ces[2]
    points = sorted(zip(ces, map(log, config.compute), strict=True))

    def compute(ce: float) -> float:
        (y0, x0), (y1, x1) = points[:2] if ce < points[1][0] else points[1:]
        return exp(x0 + (x1 - x0) * (ce - y0) / (y1 - y0))

    assert result.numbers[f"{hook} compute_clean"].value == pytest.approx(compute(clean), rel=1e-5)
    assert found["recovered"].value == pytest.approx(compute(own) / compute(clean), rel=1e-5)
    assert found["ce"].value == pytest.approx(own, rel=1e-6)
    assert found["recovered"].standard_error > 0
    x_ND = plain.activation(1)[plain.counted_RT]
    error_N1 = (x_ND - sae.sae.decode(sae.sae.encode(x_ND))).norm(dim=1, keepdim=True)
    white_ND = torch.cat(
        [
            torch.randn(int(rows.sum()), 32, generator=torch.Generator().manual_seed(16 * i), dtype=torch.float64)
            for i, rows in enumerate(plain.counted_RT.split(16))
        ]
    )

    def at_random(x_RTD: torch.Tensor, counted_RT: torch.Tensor) -> torch.Tensor:
        changed_RTD = x_RTD.clone()
        changed_RTD[counted_RT] = x_ND + error_N1 * white_ND / white_ND.norm(dim=1, keepdim=True)
        return changed_RTD

    random = plain.kl_and_ce(1, at_random)[1]
    assert found["ce"].control == pytest.approx(random, rel=1e-6)
    if random <= ces[2]:
        assert found["recovered"].control == pytest.approx(compute(random) / compute(clean), rel=1e-5)


def test_a_family_attends_within_documents_too(
    trained: Path, llama_folder: Path, family: dict[float, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the sweep's model does, so that in the family it needs the compute that it has there."""
    frequent = int(PlainModel(llama_folder, trained).tokens_RT[:, 1:].flatten().mode().values)
    monkeypatch.setattr("sae_sweep.training.run.sources.parting", lambda *_: Parting(None, frequent))
    sae = in_float64(trained, OWN)
    session = replace(Session.of([sae]), kept=Kept())
    models = [str(llama_folder), str(family[3.0])]
    config = replace(BASE, models=models, compute=[100.0, 1.0], extrapolate=True)
    result = read({"a": run(session, [sae], config)}, session.streams.batches)["a"]
    assert result.numbers[f"{sae.spliced.hook} compute_clean"].value == pytest.approx(100, rel=1e-6)


def test_a_table_is_asked_for(trained: Path, tmp_path: Path) -> None:
    """A CE of 1 is worth a million, one of 100 nothing much: the line between them holds all."""
    file = tmp_path / "family.csv"
    file.write_text("compute,ce,standard_error\n1,100,0.5\n1e6,1,0.5\n")
    chosen = [OWN, "gated-l0_3-w40-L2-s1"]
    words = [
        "--analysis=compute_equivalent",
        f"--member={','.join(chosen)}",
        f"analysis.compute_equivalent.table={file}",
    ]
    assert main(["eval", str(trained), *words]) == 0
    found = json.loads((trained / "analyses" / "compute_equivalent.json").read_text())
    for label in chosen:
        numbers, metrics = found["members"][label], json.loads((trained / label / "metrics.json").read_text())
        assert numbers["ce"]["value"] == pytest.approx(metrics["ce_sae"], rel=1e-6)
        share = 1e6 ** ((metrics["ce_clean"] - metrics["ce_sae"]) / 99)
        assert numbers["recovered"]["value"] == pytest.approx(share, rel=1e-5)
    zero = found["numbers"]["blocks.1.hook_resid_post zero_recovered"]
    metrics = json.loads((trained / OWN / "metrics.json").read_text())
    assert zero["value"] == pytest.approx(1e6 ** ((metrics["ce_clean"] - metrics["ce_zero"]) / 99), rel=1e-5)
    assert [series["name"] for series in found["figure"]["series"]] == [
        "family",
        "SAEs at blocks.1.hook_resid_post",
        "SAEs at blocks.2.hook_resid_post",
    ]


@pytest.mark.parametrize(("extrapolate", "known"), [("false", False), ("true", True)])
def test_the_clean_model_beyond_the_family(trained: Path, tmp_path: Path, extrapolate: str, known: bool) -> None:
    """What the family needs for its CE is said where that is reached, or guessed where that is asked for."""
    file = tmp_path / "far.csv"
    file.write_text("compute,ce\n1,90\n2,80\n")
    words = [f"table={file}", "own=5", f"extrapolate={extrapolate}"]
    asked = [f"analysis.compute_equivalent.{word}" for word in words]
    assert main(["eval", str(trained), "--analysis=compute_equivalent", f"--member={OWN}", *asked]) == 0
    found = json.loads((trained / "analyses" / "compute_equivalent.json").read_text())
    assert ("blocks.1.hook_resid_post compute_clean" in found["numbers"]) == known
    assert ("recovered_extrapolated" if known else "recovered_at_least") in found["members"][OWN]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ": give either table=FILE or models=[FOLDER,...] with compute=[...]"),
        (["models=[a,b]", "compute=[1]"], ".compute has 1 numbers for 2 models; give one for each"),
        (["models=[a,b]", "compute=[1,-1]"], ".compute=[1.0, -1.0] must be numbers above 0"),
        (["models=[a]", "compute=[1]"], ": a family has at least two models, of different compute"),
        (["table={rising}"], ": CE does not fall with compute in this family"),
        (["table={far}"], ": the clean CE of "),
        (["table={far}", "own=0"], ".own=0 must be above 0"),
        (["models=[{llama},{demo}]", "compute=[1,2]"], ".models: {demo} has another vocabulary than the sweep's model"),
    ],
)
def test_what_cannot_be_asked(
    trained: Path, llama_folder: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import sae_sweep

    places = {"rising": tmp_path / "rising.csv", "far": tmp_path / "far.csv", "llama": llama_folder}
    places["demo"] = Path(sae_sweep.__file__).parent / "assets" / "demo_lm"
    places["rising"].write_text("compute,ce\n1,2\n2,3\n")
    places["far"].write_text("compute,ce\n1,90\n2,80\n")
    asked = [f"analysis.compute_equivalent.{word.format(**places)}" for word in words]
    assert main(["eval", str(trained), "--analysis=compute_equivalent", f"--member={OWN}", *asked]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sae-sweep: error: analysis.compute_equivalent{said.format(**places)}")
