"""Latents at random, as the member's file has them, beside what plain hooks find."""

import json
from pathlib import Path

import pytest
import torch

from sae_sweep.analyses.contexts.places import Place
from sae_sweep.analyses.latents import Config, quantiles, run
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.result import Result
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from tests.analyses.plain import PlainModel, in_float64

LABEL = "gated-l0_3-w40-L2-s1"
ASKED = {"n": 4, "contexts": 3, "quantiles": 2, "width": 2, "tokens": 3, "answers": None, "seed": 1}


def asked(sae: FinishedSae, **own: object) -> Result:
    session = Session.of([sae])
    return read({"a": run(session, [sae], Config(**{**ASKED, **own}))}, session.streams.batches)["a"]


def test_what_is_shown(trained: Path, llama_folder: Path) -> None:
    sae = in_float64(trained, LABEL)
    found = asked(sae)
    shown = found.details[LABEL]
    plain = PlainModel(llama_folder, trained)
    f_RTF = sae.sae.encode(plain.activation(2).flatten(0, 1)).view(*plain.tokens_RT.shape, -1)
    f_RTF *= plain.counted_RT[..., None]
    assert len({one["latent"] for one in shown}) == 4
    head_VD, rows_FD = plain.module.lm_head.weight, sae.sae.tensors["W_dec"]
    for one in shown:
        f_RT = f_RTF[..., one["latent"]]
        assert one["density"] == pytest.approx((f_RT > 0).sum().item() / plain.counted_RT.sum().item())
        best = f_RT.amax(1).topk(3).values
        assert [max(each["activations"]) for each in one["top"]] == pytest.approx(
            [value for value in best.tolist() if value > 0], abs=1e-3
        )
        assert all(len(each["tokens"]) == len(each["activations"]) <= 5 for each in one["top"])
        low, high = ([each["activations"][each["position"]] for each in part] for part in one["quantiles"])
        assert max(low, default=0) <= min(high)
        effect_V = head_VD.detach() @ rows_FD[one["latent"]]
        assert [each["by"] for each in one["raises"]] == pytest.approx(effect_V.topk(3).values.tolist())
        cosine_F = torch.nn.functional.cosine_similarity(rows_FD, rows_FD[one["latent"]][None])
        assert [each["cosine"] for each in one["near"]] == pytest.approx(cosine_F.topk(4).values[1:].tolist(), abs=1e-5)
    features = json.loads(found.files[f"{LABEL}/analyses/latents/neuronpedia.json"])["features"]
    assert [int(each["index"]) for each in features] == [one["latent"] for one in shown]
    assert features[0]["activations"][0]["maxValue"] == max(shown[0]["top"][0]["activations"])
    assert {one["latent"] for one in asked(sae, seed=2).details[LABEL]} != {one["latent"] for one in shown}


def test_quantiles_are_fair() -> None:
    """Of eight places, in the order of their draw, the upper half are 5, 8, 7 and 6: the first two of these are shown,
    not the two smallest."""
    places = [Place(0, i, i, [value]) for i, value in enumerate([1.0, 5.0, 4.0, 8.0, 2.0, 7.0, 6.0, 3.0])]
    found = quantiles(places, 2, 2)
    assert [[place.activation for place in part] for part in found] == [[1, 4], [5, 8]]
    assert quantiles([], 2, 2) == [[], []]


def test_answers_are_scored(trained: Path, tmp_path: Path) -> None:
    sae, file = in_float64(trained, LABEL), tmp_path / "answers.jsonl"
    questions = lines(asked(sae))
    assert {each["id"].split()[-1] for each in questions} == {"explain"}
    answers = [{"id": each["id"], "answer": "a sentence"} for each in questions]
    file.write_text("".join(json.dumps(each) + "\n" for each in answers))
    later = [each for each in lines(asked(sae, answers=str(file))) if "explain" not in each["id"]]
    assert {each["id"].split()[-1] for each in later} == {"detection", "fuzzing"}
    assert all("a sentence" in each["prompt"] for each in later)
    answers += [{"id": each["id"], "answer": [1] * prompted(each["prompt"])} for each in later]
    file.write_text("".join(json.dumps(each) + "\n" for each in answers))
    numbers = asked(sae, answers=str(file)).members[LABEL]
    assert (numbers["detection"].value, numbers["detection"].control) == (0.5, 0.5), "who always says yes knows nothing"


def lines(found: Result) -> list[dict[str, str]]:
    return [json.loads(line) for line in found.files[f"{LABEL}/analyses/latents/questions.jsonl"].splitlines()]


def prompted(prompt: str) -> int:
    """How many texts a question has."""
    return len(prompt.partition("\n\n")[2].splitlines())


def test_what_cannot_be_asked(trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"analysis.latents: n, contexts and quantiles must be at least 1"):
        asked(in_float64(trained, LABEL), n=0)
