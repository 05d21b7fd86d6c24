"""Every recipe and control trained on three models, and on activations without one, and every number of metrics.json
recomputed in float64 from their files.

What is recomputed is in `definitions.py`: full forwards of the Hugging Face model with plain module hooks, a row at a
time. What was found goes into tests/evidence/numbers_held.json.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, Gemma2Config

from sae_sweep.config.files import config_folder
from sae_sweep.data.tokens import open_tokens
from sae_sweep.folder.files import write_json_atomic
from sae_sweep.training.run.opening import open_group
from tests.e2e.evidence import machine
from tests.evaluation.definitions import Metrics, PlainModel, PlainSae, Question, counted, recomputed
from tests.evaluation.groups import Planned, planned, small
from tests.evaluation.saved import NEAR, magnitude, margins, read_sae

OUT = Path(__file__).parents[1] / "evidence" / "numbers_held.json"
MOST = 5e-5
"""Relative error."""
TINY = 1e-12
"""What that of 0 is relative to."""
LAYER, BATCH, STEPS = 2, 48, 240
RECIPES = tuple(
    sorted(file.stem for file in (config_folder() / "sae").glob("*.yaml") if not file.stem.endswith("_paper"))
)


@dataclass(frozen=True)
class Judged:
    """A model, and where in it."""

    family: str
    kind: str
    folder: Path
    vocabulary: int


@pytest.fixture(params=["demo", "gemma2", "neox"])
def judged(request: pytest.FixtureRequest, build_model: Callable[..., Path]) -> Judged:
    if request.param == "demo":
        return Judged("llama", "resid_post", Path(str(files("sae_sweep") / "assets" / "demo_lm")), 4096)
    if request.param == "neox":
        return Judged("neox", "mlp_out", request.getfixturevalue("neox_folder"), 300)
    folder = build_model("gemma2", Gemma2Config, num_key_value_heads=2, head_dim=16)
    return Judged("gemma2", "attn_z", folder, 300)


def trained(judged: Judged, outputs: Path, text_file: Path) -> Planned:
    """All, in one group."""
    shared = [
        *small(outputs, judged.folder, text_file),
        *(f"site={judged.kind}", f"site.layer={LAYER}", f"training.batch_size={BATCH}", "data.max_norm_ratio=null"),
        *(f"training.tokens={BATCH * STEPS}", "training.lr=2e-3", "training.lr_warmup_steps=10", "sae.l0=6"),
        "evaluation.later_sites=1",
    ]
    made = planned(shared, {name: [f"sae={name}"] for name in RECIPES})
    results = open_group(made.group).run(made.folder)
    assert {result.reason for result in results.values()} == {None}
    return made


@pytest.mark.evidence
def test_numbers_are_those_of_the_saved_files(judged: Judged, tmp_path: Path, text_file: Path) -> None:
    made, model = trained(judged, tmp_path, text_file), PlainModel(judged.family, judged.folder)
    tokenizer = AutoTokenizer.from_pretrained(judged.folder)
    special, bos = set(tokenizer.all_special_ids), tokenizer.bos_token_id
    config = made.configs["standard"]
    tokens = open_tokens(config.data, config.evaluation.tokens, tokenizer, judged.vocabulary)
    heldout_RT, first_RT = (torch.from_numpy(each).long() for each in (tokens.heldout, tokens.training.block(0)[0]))

    def activations(tokens_RT: Tensor) -> Tensor:
        rows = [
            model.activation(judged.kind, LAYER, row_T)[counted(row_T.tolist(), special, bos)] for row_T in tokens_RT
        ]
        return torch.cat(rows)

    x_ND, mean_D = activations(heldout_RT), activations(first_RT).mean(0)
    ends = (LAYER + 1,) if judged.kind == "resid_post" else (LAYER,)
    question = Question(judged.kind, LAYER, heldout_RT, special, bos, mean_D, every_position=False, ends=ends)
    found = held(made, x_ND, lambda sae: recomputed(model, sae, question), ("l0", "fvu", "ce_recovered", "kl"))
    keep(f"{'demo' if judged.vocabulary == 4096 else judged.family}, {judged.kind}", found)


def held(
    made: Planned, x_ND: Tensor, recompute: Callable[[PlainSae], Metrics], shown: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """By member how far its metrics.json is from what its files come to, which is asserted; and numbers to show."""
    found = {}
    for name in made.configs:
        sae = read_sae(made.member_folder(name))
        saved = json.loads((made.member_folder(name) / "metrics.json").read_text())
        undecided = margins(sae, x_ND).lt(NEAR * x_ND.norm(dim=1, keepdim=True)).sum().item() / len(x_ND)
        expected = recompute(sae)
        errors = {
            key: abs(saved[key] - value) / max(magnitude(key, value, expected), TINY)
            for key, value in expected.items()
            if value is not None
        }
        worst = max(errors, key=lambda key: errors[key])
        found[name] = {
            "numbers": len(errors),
            "largest relative error": float(f"{errors[worst]:.2g}"),
            "of": worst,
            "codes on which float32 may disagree, per token": undecided,
            **{key: saved[key] for key in shown},
        }
        assert errors[worst] < MOST + undecided, (name, worst, saved[worst], expected[worst])
    return found


def keep(place: str, found: dict[str, Any]) -> None:
    entries = json.loads(OUT.read_text()) if OUT.is_file() else {}
    write_json_atomic(OUT, {**entries, place: found, "machine": machine()})


def without_a_model(sae: PlainSae, x_ND: Tensor) -> Metrics:
    """Every metric that activations alone decide."""
    f_NF = sae.encode(x_ND)
    x_hat_ND, fires_NF = sae.decode(f_NF), f_NF > 0
    error_ND, density_F = x_ND - x_hat_ND, fires_NF.double().mean(0)
    fvu = error_ND.square().sum() / (x_ND - x_ND.mean(0)).square().sum()
    numbers = {
        "l0": fires_NF.double().sum(1).mean(),
        "l1": (f_NF @ sae.tensors["W_dec"].norm(dim=1)).mean(),
        "mse": error_ND.square().sum(1).mean(),
        "fvu": fvu,
        "explained_variance": 1 - fvu,
        "cosine": torch.nn.functional.cosine_similarity(x_ND, x_hat_ND, dim=1).mean(),
        "gamma": x_hat_ND.square().sum() / (x_hat_ND * x_ND).sum(),
        "alive": (density_F > 0).double().mean(),
        "density_over_1pct": (density_F > 0.01).double().mean(),
        "density_over_10pct": (density_F > 0.1).double().mean(),
        "tokens_evaluated": torch.tensor(float(len(x_ND))),
    }
    return {key: float(value) for key, value in numbers.items()}


@pytest.mark.evidence
def test_numbers_on_stored_activations(tmp_path: Path) -> None:
    """The first 40 rows are held out; sums of few directions, about a mean."""
    generator = torch.Generator().manual_seed(0)
    fires = torch.rand(500, 16, 60, generator=generator) < 0.06
    codes = fires * torch.rand(500, 16, 60, generator=generator)
    x_RTD = codes @ torch.randn(60, 24, generator=generator) + torch.randn(24, generator=generator)
    np.save(tmp_path / "x.npy", x_RTD.numpy())
    shared = [
        *("name=small", f"output_dir={tmp_path}", "model.device=cpu", "tracking=none", "data.max_norm_ratio=null"),
        *("data=activations", f"data.path={tmp_path / 'x.npy'}", "data.context=16", "data.block_rows=32"),
        *(f"training.batch_size={BATCH}", f"training.tokens={BATCH * STEPS}", "training.lr=2e-3", "sae.l0=6"),
        *("sae.width=40", "evaluation.tokens=640"),
    ]
    made = planned(shared, {name: [f"sae={name}"] for name in RECIPES if name != "temporal"})  # which reads rows
    assert {result.reason for result in open_group(made.group).run(made.folder).values()} == {None}
    x_ND = x_RTD[:40].reshape(-1, 24).double()
    keep("stored activations", held(made, x_ND, lambda sae: without_a_model(sae, x_ND), ("l0", "fvu")))
