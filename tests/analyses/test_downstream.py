"""A number of one's own with and without members and latents, by plain hooks in float64, and by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_sweep.analyses.downstream import Config, run
from sae_sweep.analyses.scores.effects import Effect, Effects, correlated, estimate_of
from sae_sweep.analyses.scores.function import Score, log_probability
from sae_sweep.analyses.scores.prompts import Prompts
from sae_sweep.analyses.session.finished import finished_saes
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.result import Number, Result
from sae_sweep.analyses.session.session import Session
from sae_sweep.cli import main
from sae_sweep.errors import ConfigError
from tests.analyses.plain import PlainModel, in_float64

LABEL = "gated-l0_3-w40-L2-s1"
HERE = "tests.analyses.test_downstream"


def difference(logits_RTV: Tensor, tokens_RT: Tensor) -> Tensor:
    """Of two tokens at the end of each row."""
    return logits_RTV[:, -1, 40] - logits_RTV[:, -1, 50]


def wanted(logits_RTV: Tensor, tokens_RT: Tensor, prompts: list[dict[str, Any]]) -> Tensor:
    """The logit of the token that each line names."""
    return torch.stack([logits_RTV[row, -1, one["wanted"]] for row, one in enumerate(prompts)])


def right(logits_RTV: Tensor, tokens_RT: Tensor) -> Tensor:
    """No gradient goes through it."""
    return (logits_RTV[:, -2].argmax(-1) == tokens_RT[:, -1]).double()


def raising(logits_RTV: Tensor, tokens_RT: Tensor) -> Tensor:
    raise KeyError("a name")


def of_all(logits_RTV: Tensor, tokens_RT: Tensor) -> Tensor:
    return logits_RTV.mean()


def asked(root: Path, label: str, function: str, **more: Any) -> Result:
    sae = in_float64(root, label)
    session = Session.of([sae])
    config = Config(**{"function": f"{HERE}:{function}", "prompts": None, "latents": 4, "seed": 0, **more})
    return read({"a": run(session, [sae], config)}, session.streams.batches)["a"]


def test_log_probabilities_by_hand() -> None:
    """Of two tokens with logits log 1 and log 3 the second has probability 3/4."""
    logits = torch.tensor([[0.0, 3.0]]).log().expand(1, 3, 2).clone()
    logits[0, :, 0] = 0
    mean = log_probability(logits, torch.tensor([[0, 1, 0]])).item()
    assert mean == pytest.approx((torch.tensor(0.75).log() + torch.tensor(0.25).log()).item() / 2)


def test_effects_by_hand() -> None:
    """Rows of 1 and 3 have mean 2, and an error of 1. Effects 4 and -2 rank so, and 0.5 is the drawn one's."""
    assert estimate_of(torch.tensor([4.0, 10.0]), 2) == Number(2.0, 1.0, 2)
    exact = [(7, False, -2.0), (9, True, 0.5), (3, False, 4.0)]
    found = Effects([Effect(i, drawn, Number(1.0, None, 5), Number(x, 0.1, 5)) for i, drawn, x in exact], 0)
    numbers = found.numbers()
    assert numbers["effect_1"] == Number(4.0, 0.1, 5, 0.5)
    assert numbers["effect_2"] == Number(-2.0, 0.1, 5, None)
    assert numbers["effect_size"] == Number(3.0, pytest.approx(1.0), 2, 0.5)
    assert "estimate_correlation" not in numbers, "estimates are all the same"
    assert [one["latent"] for one in found.details()] == [3, 7, 9]


def test_correlation_by_hand() -> None:
    """Of (-1, 0, 1, 0) with (-1, 1, 1, -1): 2 / sqrt(2 x 4)."""
    number = correlated(torch.tensor([-1.0, 0, 1, 0]).double(), torch.tensor([-1.0, 1, 1, -1]).double())
    assert number is not None
    assert number.value == pytest.approx(2 / 8**0.5)
    assert number.standard_error is not None
    assert correlated(torch.ones(3).double(), torch.ones(3).double()) is None


def test_by_plain_hooks(trained: Path, llama_folder: Path) -> None:
    found = asked(trained, LABEL, "difference")
    plain, sae = PlainModel(llama_folder, trained), in_float64(trained, LABEL).sae
    x_ND = plain.activation(2)[plain.counted_RT]
    f_NF = sae.encode(x_ND)

    def numbers(value_ND: Tensor | None) -> Tensor:
        if value_ND is None:
            return difference(plain.logits(), plain.tokens_RT)

        def change(x_RTD: Tensor, counted_RT: Tensor) -> Tensor:
            changed_RTD = x_RTD.clone()
            changed_RTD[counted_RT] = value_ND
            return changed_RTD

        return difference(plain.logits(2, change), plain.tokens_RT)

    clean_R, own_R = numbers(None), numbers(sae.decode(f_NF))
    own = found.members[LABEL]
    assert own["with"].value == pytest.approx(own_R.mean().item())
    assert own["with"].control == pytest.approx(clean_R.mean().item())
    assert own["with"].standard_error == pytest.approx(own_R.std().item() / len(own_R) ** 0.5)
    for kind, value_D in (("zero", torch.zeros(x_ND.shape[1]).double()), ("mean", x_ND.mean(0))):
        ablated_R = numbers(value_D.expand_as(x_ND))
        assert found.numbers[f"blocks.2.hook_resid_post {kind}"].value == pytest.approx(ablated_R.mean().item())
        kept = (own_R - ablated_R).mean() / (clean_R - ablated_R).mean()
        assert own[f"faithfulness_{kind}"].value == pytest.approx(kept.item())
        assert own[f"faithfulness_{kind}"].control != pytest.approx(kept.item())
    details = found.details[LABEL]
    assert len(details) == 8
    assert sum(one["drawn_at_random"] for one in details) == 4
    for one in details:
        part_NF = torch.zeros_like(f_NF)
        part_NF[:, one["latent"]] = f_NF[:, one["latent"]]
        effect_R = numbers(sae.decode(f_NF - part_NF)) - own_R
        assert one["effect"] == pytest.approx(effect_R.mean().item(), abs=1e-12)
        assert one["n"] == len(own_R)
        step = 5e-3  # the model's norms are in float32
        two = [numbers(sae.decode(f_NF - sign * step * part_NF)).mean().item() for sign in (1, -1)]
        assert one["estimate"] == pytest.approx((two[0] - two[1]) / (2 * step), rel=1e-3, abs=2e-5)
    assert own["effect_1"].value == next(one["effect"] for one in details if not one["drawn_at_random"])


def test_ones_own_prompts(trained: Path, llama_folder: Path, tmp_path: Path) -> None:
    """Of two lengths, in any order; the same numbers again by a process that goes on."""
    plain, sae = PlainModel(llama_folder, trained), in_float64(trained, LABEL).sae
    rows = [row[: 9 if number % 3 else 16].tolist() for number, row in enumerate(plain.tokens_RT[:12])]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"tokens": row, "wanted": 30 + n}) + "\n" for n, row in enumerate(rows)))
    found = asked(trained, LABEL, "wanted", prompts=str(file), latents=0)
    expected = []
    for number, row in enumerate(rows):
        plain.tokens_RT = torch.tensor([row])
        plain.counted_RT = plain.tokens_RT > 2
        plain.counted_RT[:, 0] = False

        def change(x_RTD: Tensor, counted_RT: Tensor) -> Tensor:
            return torch.where(counted_RT[..., None], sae.decode(sae.encode(x_RTD[0]))[None], x_RTD)

        expected.append(plain.logits(2, change)[0, -1, 30 + number].item())
    number = found.members[LABEL]["with"]
    assert (number.value, number.n) == (pytest.approx(sum(expected) / 12), 12)
    assert found.figure is None


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("nowhere", "is not module:function"),
        ("no_such_module:f", "no_such_module:f: ModuleNotFoundError"),
        (f"{HERE}:nothing", "AttributeError: module"),
        (f"{HERE}:HERE", "is no function"),
        (f"{HERE}:of_all", "gave shape (), not a tensor of one number for each row"),
        (f"{HERE}:raising", "raising: KeyError: 'a name'"),
        (f"{HERE}:right", "its numbers have no gradient in the logits"),
    ],
)
def test_functions_that_are_none(function: str, said: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", str(trained), "--analysis=downstream", "--member", "topk-l0_3-w24-L1-s0"]
    assert main([*command, f"analysis.downstream.function={function}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sae-sweep: error: analysis.downstream.function=")
    assert said in line


def test_prompts_that_are_none(trained: Path, tmp_path: Path) -> None:
    saes = finished_saes(trained, ["topk-l0_3-w24-L1-s0"])
    file = tmp_path / "prompts.jsonl"
    for text, said in (
        ("x", "line 1 is no JSON"),
        ('{"text": 3}', "line 1 needs text, or tokens"),
        ("\n", "has no prompt"),
        ('{"tokens": [3, 300]}', "prompt 1 has 2 tokens; each needs 2, from 0 to 299"),
    ):
        file.write_text(text)
        reading = run(Session.of(saes), saes, Config(f"{HERE}:right", str(file), 0, 0))
        with pytest.raises(ConfigError, match=said):
            read({"a": reading}, Session.of(saes).streams.batches)


def test_prompts_of_text(trained: Path, tmp_path: Path) -> None:
    """They begin with BOS, as rows of training do; the shortest come first."""
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"text": "abcd"}\n{"text": "xy", "of": 2}\n{"tokens": [5, 6]}\n')
    stream = Session.of(finished_saes(trained, ["topk-l0_3-w24-L1-s0"])).streams.opened[0]
    rows = Prompts.read(str(file)).rows(stream)
    assert [one.first for one in rows] == [0, 1, 2]
    assert rows[0].tokens_RT.tolist() == [[5, 6]]
    assert rows[1].tokens_RT.tolist() == [[1, *stream.model.tokenizer("xy", add_special_tokens=False)["input_ids"]]]
    assert rows[1].lines[0]["of"] == 2
    assert rows[2].tokens_RT.shape == (1, 5)


def test_functions_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_here.py").write_text("def twice(logits, tokens):\n    return 2 * logits[:, 0, 0]\n")
    monkeypatch.chdir(tmp_path)
    assert Score("found_here:twice")._function(torch.ones(3, 1, 1), None).tolist() == [2, 2, 2]
