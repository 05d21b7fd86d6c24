"""A new architecture is its facts, maths and yaml, and one of a new form a file more: here those of another package."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_sweep.cli import main
from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.interop import load_sae

FACTS = """
from dataclasses import dataclass

from sae_sweep.architectures.base import Coefficient, PenaltyConfig
from sae_sweep.architectures.recipe import Recipe


@dataclass(frozen=True)
class ElasticConfig(PenaltyConfig):
    strength: float | None
    l1_share: float

    @classmethod
    def knob(cls):
        return "strength"

    def coefficient(self):
        return Coefficient(self.strength, self.coefficient_unit, degree=2.0)

    def paper_recipe(self, run):
        return Recipe(lr=1e-2, resample_every=25_000 if self.resample else 0)


Config = ElasticConfig
"""
MATHS = '''
import torch

from sae_sweep.saes.base import Losses, SaeMaths, squared_error
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.inference import InferenceSae


class Elastic(SaeMaths):
    """L = ||x - x_hat||^2 + strength sum_i (a f_i + (1 - a) f_i^2)"""

    unit_decoder = True

    def __init__(self, config):
        pass

    def initialise(self, config, start, width, generator):
        W_dec = start.decoder(config.decoder_init, width, generator)
        b_dec = start.b_dec(config.b_dec_init)
        W_enc = start.encoder(config.encoder_init, W_dec, b_dec, generator)
        return {"W_enc": W_enc, "b_enc": torch.zeros(width), "W_dec": W_dec, "b_dec": b_dec}

    def losses(self, p, x_BD, target_BMD, step):
        codes, f = step.encoder(x_BD, p["W_enc"], p["b_enc"], p["b_dec"]).above()
        f = self.capped(f, step)
        share_M = torch.tensor([config.l1_share for config in step.configs])
        share = codes.at_latent(share_M[step.layout.member_F])
        return Losses(
            reconstruction_M=squared_error(codes.decode(f, p["W_dec"]) + p["b_dec"] - target_BMD),
            sparsity_M=codes.member_sums(share * f + (1 - share) * f.square()) / codes.tokens,
            auxiliary_M=None,
            fired_F=codes.fired(f),
            support_F=codes.support(),
        )

    def capped(self, f, step):
        return f

    def fold(self, config, p, buffers, scale):
        tensors = {"W_enc": p["W_enc"].T.contiguous(), "b_enc": p["b_enc"] / scale}
        tensors |= {"W_dec": p["W_dec"].clone(), "b_dec": p["b_dec"] / scale}
        return InferenceSae(ReluForm(), tensors, subtract_b_dec=True)

    def revive(self, p, latents, directions_KD, encoder_norm):
        p["W_dec"][latents], p["W_enc"][latents] = directions_KD, directions_KD * encoder_norm
        p["b_enc"][latents] = 0
        return ("W_dec", "W_enc", "b_enc")


Maths = Elastic
'''
YAML = """
defaults:
  - /every_sae@_here_
  - _self_

architecture: elastic
recipe: paper
input_scale: none
strength: null
l1_share: 0.5
coefficient_unit: sum
resample: true
"""
CAPPED = {
    "facts.py": """
from dataclasses import dataclass

from theirs.elastic.facts import ElasticConfig


@dataclass(frozen=True)
class CappedConfig(ElasticConfig):
    cap: float


Config = CappedConfig
""",
    "maths.py": """
from dataclasses import replace

from theirs.capped.form import CappedForm
from theirs.elastic.maths import Elastic


class Capped(Elastic):
    def capped(self, f, step):
        return f.clamp(max=step.configs[0].cap)

    def fold(self, config, p, buffers, scale):
        return replace(super().fold(config, p, buffers, scale), form=CappedForm(config.cap / scale))


Maths = Capped
""",
    "form.py": """
from dataclasses import dataclass

from sae_sweep.saes.forms.relu import ReluForm


@dataclass(frozen=True)
class CappedForm(ReluForm):
    cap: float

    saelens, saelens_transcoder = "capped", "capped_transcoder"

    def margins(self, t, z_BF):
        pre_BF, _ = super().margins(t, z_BF)
        return pre_BF, pre_BF.clamp(max=self.cap)

    def fired(self, t, read_BD):
        found = super().fired(t, read_BD)
        return found._replace(value_N=found.value_N.clamp(max=self.cap))


Form = CappedForm
""",
}
CAPPED_YAML = "defaults:\n  - elastic\n  - _self_\n\narchitecture: capped\ncap: 0.5\n"
ENTRY_POINTS = """
[sae_sweep.architectures]
elastic = theirs.elastic
capped = theirs.capped
[sae_sweep.forms]
capped = theirs.capped.form
"""


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, install: Callable[..., None], llama_folder: Path
) -> list[str]:
    """The beginning of a command line that knows `sae=elastic` and `sae=capped`."""
    files = {"__init__.py": "", "elastic/__init__.py": "", "elastic/facts.py": FACTS, "elastic/maths.py": MATHS}
    capped = {f"capped/{name}": text for name, text in {"__init__.py": "", **CAPPED}.items()}
    install("theirs", files | capped, ENTRY_POINTS)
    folder = tmp_path / "configs" / "sae"
    folder.mkdir(parents=True)
    (folder / "elastic.yaml").write_text(YAML)
    (folder / "capped.yaml").write_text(CAPPED_YAML)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("".join(f"{number} is followed by {number + 1}.\n" for number in range(9_000)))
    return [
        *("--config-dir", str(tmp_path / "configs"), "name=mine", "tracking=none", "model=local", "model.device=cpu"),
        *(f"model.path={llama_folder}", "data=text", "data.path=text.txt", "data.context=16", "data.block_rows=64"),
        *("sae.width=48", "training.tokens=8e3", "training.batch_size=128", "evaluation.tokens=320"),
    ]


def test_it_is_trained_beside_the_others(command: list[str], tmp_path: Path) -> None:
    assert main([*command, "sae=elastic,standard", "sae.lookup=none,learned", "sae.l0=6", "training.lr=1e-2"]) == 0
    assert main([*command, "sae=elastic", "sae.strength=0.1,1", "sae.l1_share=0.2", "sae.centre=true"]) == 0
    sweep = tmp_path / "outputs" / "mine"
    plan = json.loads((sweep / "sweep.json").read_text())
    labels = {
        *("elastic-l0_6-w48", "elastic_tokenized-l0_6-w48", "standard-l0_6-w48", "standard_tokenized-l0_6-w48"),
        *(f"elastic-strength_{strength}-w48-centre_true-l1_share_0.2" for strength in ("0.1", "1")),
    }
    assert {label: entry["state"] for label, entry in plan["members"].items()} == dict.fromkeys(labels, "finished")
    metrics: dict[str, dict[str, Any]] = {
        label: json.loads((sweep / label / "metrics.json").read_text()) for label in labels
    }
    for label, found in metrics.items():
        assert set(found) == set(METRICS)
        sae = load_sae(sweep / label)
        assert (sae.d, sae.width, sae.lookup is not None) == (32, 48, "tokenized" in label)
        raw_BD = sae.tensors["b_dec"] + 100 * sae.tensors["W_dec"][:4]
        assert bool((sae.encode(raw_BD, torch.arange(4)) > 0).any(1).all())
    cfg = json.loads((sweep / "elastic-l0_6-w48" / "cfg.json").read_text())
    assert (cfg["architecture"], cfg["metadata"]["training_architecture"]) == ("standard", "elastic")
    for label in ("elastic-l0_6-w48", "elastic_tokenized-l0_6-w48"):
        assert metrics[label]["l0"] == pytest.approx(6, rel=0.2)
        assert metrics[label]["threshold_mode"] == "quantile"
    rest = "w48-centre_true-l1_share_0.2"
    assert metrics[f"elastic-strength_1-{rest}"]["l0"] < metrics[f"elastic-strength_0.1-{rest}"]["l0"]


def test_one_of_a_new_form(command: list[str], tmp_path: Path) -> None:
    """It is trained, trimmed, judged as what it is, and read back."""
    assert main([*command, "sae=capped", "sae.l0=6", "training.lr=1e-2"]) == 0
    folder = tmp_path / "outputs" / "mine" / "capped-l0_6-w48"
    cfg, sae = json.loads((folder / "cfg.json").read_text()), load_sae(folder)
    assert (cfg["architecture"], cfg["cap"]) == ("capped", 0.5)
    assert (type(sae.form).__name__, sae.form) == ("CappedForm", type(sae.form)(0.5))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["l0"] == pytest.approx(6, rel=0.2)
    assert metrics["threshold_mode"] == "quantile"
    x_BD = sae.tensors["b_dec"] + 100 * sae.tensors["W_dec"][:4]
    assert sae.encode(x_BD).amax(1).tolist() == [0.5] * 4
    assert sae.coded(x_BD)[0].value_N.max() == 0.5


def test_it_is_in_the_report(command: list[str], tmp_path: Path) -> None:
    assert main([*command, "sae=elastic,standard", "sae.l0=6"]) == 0
    sweep = tmp_path / "outputs" / "mine"
    for _ in range(2):
        (cell,) = json.loads((sweep / "pareto.json").read_text())["cells"]
        points = {point["member"]: point for point in cell["points"]}
        assert points["elastic-l0_6-w48"]["architecture"] == "elastic"
        assert points["elastic-l0_6-w48"]["lr"] == 1e-2, "its recipe's"
        assert {"elastic", "standard"} <= cell["frontiers"].keys()
        assert "elastic-l0_6-w48" in (sweep / "report.html").read_text()
        (sweep / "pareto.json").unlink()
        assert main(["report", str(sweep)]) == 0


def test_its_keys_are_known_and_planned(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "sae=elastic", "sae.strength=0.1", "dry_run=members"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "elastic-strength_0.1-w48" in line]
    assert {"elastic", "48", "strength", "0.1", "3,152"} <= set(line.split())
    for wrong, named in (
        ("sae.strenght=1", "sae.strength"),
        ("sae.coefficient_unit=none", "sae.coefficient_unit=none"),
    ):
        assert main([*command, "sae=elastic", wrong, "dry_run=true"]) == 2
        assert named in capsys.readouterr().err
    assert main([*command, "sae=elastic", "sae.strength=0.1", "sae.l0=6", "dry_run=true"]) == 2
    assert "both set the sparsity" in capsys.readouterr().err
