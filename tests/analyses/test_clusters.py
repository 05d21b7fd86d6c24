"""SAEs beside what needs none, by plain hooks in float64 and counting by hand."""

import inspect
import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import log
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae_sweep.analyses.clusters import Config, more_than, run
from sae_sweep.analyses.session.finished import finished_saes
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.session import Session
from sae_sweep.cli import main
from sae_sweep.launch.local import run_sweep
from tests.analyses.plain import PlainModel, in_bfloat16, in_float64
from tests.evaluation.groups import planned, small

CONFIG = Config(200, 400, 0.1, 0)
OWN = "topk-k_3-w24"


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory, llama_folder: Path) -> Path:
    """A sweep of one SAE and its controls: centroids of its L0, and components above and below it."""
    outputs = tmp_path_factory.mktemp("controls")
    (outputs / "text.txt").write_text(inspect.getsource(inspect))
    shared = [*small(outputs, llama_folder, outputs / "text.txt"), "training.tokens=480", "site.layer=1"]
    shared += ["training.batch_size=48", "training.lr=3e-3", "sae.width=24"]
    members = {
        f"{sae}{k}": [f"sae={sae}", f"sae.k={k}"] for sae, k in (("topk", 3), ("kmeans", 3), ("pca", 2), ("pca", 5))
    }
    made = planned(shared, members)
    assert {one.state for one in run_sweep(list(made.configs.values()))} == {"finished"}
    return made.folder.root


def test_more_than_controls() -> None:
    """Three rows whose squares are 4 each: errors 1, 1, 2 against the mean of (2, 3, 2) and (4, 3, 2), (3, 3, 2). So it
    is (1 - 4 / 12) - (1 - 8 / 12) = 4 / 12; without a row 2 / 8, 2 / 8 or 4 / 8."""
    mine, theirs, others = (Means(Kept(), name, 3) for name in "abc")
    for means, errors in ((mine, [1.0, 1.0, 2.0]), (theirs, [2.0, 3.0, 2.0]), (others, [4.0, 3.0, 2.0])):
        means.add("error", torch.arange(3), torch.tensor(errors))
        means.add("variance", torch.arange(3), torch.full((3,), 4.0))
    found = more_than(mine, {theirs: 0.5, others: 0.5}, "error", "variance")
    assert found is not None
    assert (found.value, found.n, found.control) == (pytest.approx(1 / 3), 3, 0)
    left = torch.tensor([0.25, 0.25, 0.5])
    assert found.standard_error == pytest.approx((2 / 3 * (left - left.mean()).square().sum().item()) ** 0.5)


def test_by_plain_hooks(controls: Path, llama_folder: Path) -> None:
    sae = in_float64(controls, OWN)
    session = replace(Session.of([sae]), kept=Kept())
    result = read({"a": run(session, [sae], CONFIG)}, session.streams.batches)["a"]
    found, (stream,) = result.members[OWN], session.streams.opened
    x_ND, tokens_N = _fitted_on(stream.source, sae.spliced.hook)
    few_CD, all_CD = session.kept.zeros("components/0/" + sae.spliced.hook), None
    centroid_KD = session.kept.zeros(f"centroids/0/{sae.spliced.hook}/2/24").double()
    few_CD, all_CD = few_CD[:2].double(), few_CD[:3].double()
    mean_D = x_ND.mean(0)
    covariance_DD = (x_ND - mean_D).T @ (x_ND - mean_D)
    assert torch.allclose(
        all_CD @ covariance_DD @ all_CD.T, torch.linalg.eigvalsh(covariance_DD).flip(0)[:3].diag(), rtol=1e-3, atol=1e-2
    )

    def of_components(x_RTD: Tensor, rows_CD: Tensor, cluster: bool) -> Tensor:
        rest_RTD = x_RTD - mean_D
        low_RTD = rest_RTD @ rows_CD.T @ rows_CD
        nearest = torch.cdist((rest_RTD - low_RTD).flatten(0, 1), centroid_KD).argmin(1)
        return mean_D + low_RTD + (centroid_KD[nearest].view_as(x_RTD) if cluster else 0)

    made = {
        "sae": lambda x_RTD: sae.sae.decode(sae.sae.encode(x_RTD.flatten(0, 1))).view_as(x_RTD),
        "both": lambda x_RTD: of_components(x_RTD, few_CD, True),
        "alone": lambda x_RTD: of_components(x_RTD, all_CD, False),
        "zero": torch.zeros_like,
    }
    plain = PlainModel(llama_folder, controls)
    x_RTD, counted_RT, ce = plain.activation(1), plain.counted_RT, {}
    for name, make in made.items():
        ce[name] = plain.kl_and_ce(1, lambda x, where, make=make: torch.where(where[..., None], make(x), x))[1]
    clean = plain.kl_and_ce(1, lambda x, _: x)[1]
    whole = (x_RTD - mean_D)[counted_RT].square().sum()
    variance = {
        name: 1 - ((x_RTD - make(x_RTD))[counted_RT].square().sum() / whole).item() for name, make in made.items()
    }
    recovered = {name: (ce["zero"] - each) / (ce["zero"] - clean) for name, each in ce.items()}
    of_site = {
        name: result.numbers[f"{sae.spliced.hook} {name} pca_kmeans_3_24"]
        for name in ("explained_variance", "ce_recovered")
    }
    for name, right in (("explained_variance", variance), ("ce_recovered", recovered)):
        assert found[name].value == pytest.approx(right["sae"], rel=1e-5), name
        assert found[name].control == pytest.approx(right["both"], rel=1e-5), name
        assert of_site[name].value == found[name].control
        assert of_site[name].control == pytest.approx(right["alone"], rel=1e-5), name
    _check_purity(found, sae.sae, (x_ND, tokens_N), (x_RTD[counted_RT], plain.tokens_RT[counted_RT]))
    _check_text(result.numbers, plain, stream.source)
    assert found["ce"].value == pytest.approx(ce["sae"], rel=1e-6)
    assert found["ce"].control == pytest.approx(result.numbers["ce_bigram"].value)


def test_variance_in_a_bfloat16_model(controls: Path) -> None:
    """A member's is that of its site: both are about the same mean, of the same activations."""
    sae = in_bfloat16(controls, OWN)
    session = replace(Session.of([sae]), kept=Kept())
    read({"a": run(session, [sae], CONFIG)}, session.streams.batches)
    own_2R, site_2R = (session.kept.zeros(f"{name}/variance", 0) for name in (OWN, f"site/0/{sae.spliced.hook}"))
    assert own_2R.any()
    assert torch.equal(own_2R, site_2R)


def _fitted_on(source: object, hook: str) -> tuple[Tensor, Tensor]:
    block = source.calibration()
    return block.activations[hook][:200].double(), block.tokens[hook][:200]


def _check_purity(found, sae, fitted, heldout) -> None:
    """Each latent's tokens are counted one by one."""
    own: dict[int, Counter[int]] = {}
    for row, token in zip(sae.encode(fitted[0]), fitted[1].tolist(), strict=True):
        own.setdefault(int(row.argmax()) if row.max() > 0 else -1, Counter())[token] += 1
    everything = Counter(fitted[1].tolist())
    right = 0
    for row, token in zip(sae.encode(heldout[0]), heldout[1].tolist(), strict=True):
        counts = own.get(int(row.argmax()) if row.max() > 0 else -1, everything)
        right += token == min(counts, key=lambda each: (-counts[each], each))
    assert found["purity"].value == pytest.approx(right / len(heldout[1]))
    assert found["purity"].control is not None


def _check_text(numbers, plain: PlainModel, source) -> None:
    """The first 400 pairs of training, counted by words."""
    pairs = []
    for index in range(3):
        for row in source.training_rows(index)[0].tolist():
            pairs += [(a, b) for a, b in pairwise(row[1:]) if min(a, b) > 2]
    counts, after = Counter(pairs[:400]), Counter(a for a, _ in pairs[:400])
    alone, kinds = Counter(b for _, b in pairs[:400]), Counter(a for a, _ in counts)
    losses = {"ce_unigram": [], "ce_bigram": []}
    for row in plain.tokens_RT.tolist():
        for a, b in pairwise(row[1:]):
            if min(a, b) > 2:
                chance = (alone[b] + len(alone) / 300) / (400 + len(alone))
                losses["ce_unigram"].append(-log(chance))
                losses["ce_bigram"].append(
                    -log((counts[a, b] + kinds[a] * chance) / (after[a] + kinds[a])) if after[a] else -log(chance)
                )
    for name, found in losses.items():
        assert numbers[name].value == pytest.approx(sum(found) / len(found)), name
        assert numbers[name].standard_error > 0
    assert numbers["ce_unigram"].control == pytest.approx(log(300))
    assert numbers["ce_clean"].control == numbers["ce_bigram"].value


def test_beside_controls_of_the_sweep(controls: Path) -> None:
    words = ["analysis.clusters.tokens=200", "analysis.clusters.ngram_tokens=400"]
    assert main(["eval", str(controls), "--analysis=clusters", *words]) == 0
    found = json.loads((controls / "analyses" / "clusters.json").read_text())
    members = found["members"]
    own = members[OWN]
    assert own["explained_variance_over_kmeans"]["value"] == pytest.approx(
        own["explained_variance"]["value"] - members["kmeans-k_3-w24"]["explained_variance"]["value"]
    )
    l0 = {k: finished_saes(controls, [f"pca-k_{k}-w24"])[0].frequency_F.sum().item() for k in (2, 5)}
    share = log(3 / l0[2]) / log(l0[5] / l0[2])
    low, high = (members[f"pca-k_{k}-w24"]["ce_recovered"]["value"] for k in (2, 5))
    assert own["ce_recovered_over_pca"]["value"] == pytest.approx(
        own["ce_recovered"]["value"] - (1 - share) * low - share * high, rel=1e-4
    )
    assert all(number["standard_error"] is not None for number in own.values())
    assert {series["name"] for series in found["figure"]["series"]} >= {"trained", "kmeans", "pca"}


def test_as_many_centroids_as_tokens_are_enough_for(controls: Path) -> None:
    """A hundred tokens are enough for twelve, of eight each, and numbers say so; the member has 24 latents."""
    sae = in_float64(controls, OWN)
    session = Session.of([sae])
    found = read({"a": run(session, [sae], replace(CONFIG, tokens=100))}, session.streams.batches)["a"]
    hook = sae.spliced.hook
    assert {name for name in found.numbers if "kmeans" in name} == {
        f"{hook} explained_variance pca_kmeans_3_12",
        f"{hook} ce_recovered pca_kmeans_3_12",
        f"{hook} purity kmeans_12",
    }
    assert found.members[OWN]["purity"].control == found.numbers[f"{hook} purity kmeans_12"].value
    assert found.figure.series[-1].name == f"PCA + k-means, {hook}, 12 centroids"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("tokens=0", "tokens=0 must be at least 1"),
        ("ngram_tokens=0", "ngram_tokens=0 must be at least 1"),
        ("within=-1", "within=-1 must not be negative"),
    ],
)
def test_what_cannot_be_asked(controls: Path, word: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(controls), "--analysis=clusters", f"analysis.clusters.{word}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"sae-sweep: error: analysis.clusters.{said}"
