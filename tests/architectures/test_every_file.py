"""Every file of configs/sae as a user takes it: composed, planned, named, trained, judged, saved, reported."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sae_sweep.config.files import config_folder
from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.interop import load_sae
from sae_sweep.launch.local import run_sweep
from sae_sweep.plan.groups import plan_sweep
from tests.architectures.options import KNOBS, WIDTH, D, member

FORMS = {
    **dict.fromkeys(("standard", "standard_april", "p_anneal"), "standard"),
    **dict.fromkeys(("gated", "gated_decoder_norm"), "gated"),
    **dict.fromkeys(("jumprelu", "jumprelu_anthropic", "batchtopk", "matryoshka"), "jumprelu"),
    **dict.fromkeys(("ortsae", "jumprelu_gemma_scope_2", "temporal"), "jumprelu"),
    **dict.fromkeys(("topk", "hierarchical_topk"), "topk"),
}
"""What each is at inference."""


CONTROLS = {"frozen_decoder", "frozen_encoder", "random", "pca", "kmeans"}
"""TopK of which nothing is trained, or not all."""


def test_every_file_is_here() -> None:
    """A paper's preset is of the same kind as what it is a preset of."""
    files = {file.stem for file in (config_folder() / "sae").glob("*.yaml")}
    assert KNOBS.keys() == FORMS.keys()
    assert files == {*FORMS, *(f"{name}_paper" for name in FORMS if name != "topk"), "topk_paper", *CONTROLS}


@pytest.mark.parametrize("option", [option for option in KNOBS if option != "temporal"])
def test_each_file_trains_as_it_stands(option: str, tmp_path: Path) -> None:
    """Three steps, with its own knob and with `sae.l0`. The one that needs tokens in their order: `temporal/`."""
    configs = [member(option, **KNOBS[option]), member(option, l0=5)]
    (knob, value), *_ = KNOBS[option].items()
    labels = [f"{option}-{knob}_{value}-w64", f"{option}-l0_5-w64"]
    plan = plan_sweep(configs)
    assert [member.label for member in plan.members] == labels
    assert {member.schedule.total_steps for member in plan.members} == {3}
    outcomes = run_sweep([replace(made, output_dir=str(tmp_path)) for made in configs])
    assert [(outcome.label, outcome.state) for outcome in outcomes] == [(label, "finished") for label in labels]
    for outcome in outcomes:
        assert outcome.metrics is not None
        assert set(outcome.metrics) == set(METRICS)
        assert outcome.metrics["tokens_trained"] == 192
        sae = load_sae(outcome.folder)
        assert (sae.form.saelens, sae.d, sae.width) == (FORMS[option], D, WIDTH)
        assert torch.allclose(sae.tensors["W_dec"].norm(dim=1), torch.ones(WIDTH), atol=1e-5)
    assert outcomes[1].metrics is not None
    assert outcomes[1].metrics["l0"] == pytest.approx(5, rel=0.3), "trimmed on the calibration block"
    (cell,) = json.loads((tmp_path / "walk" / "pareto.json").read_text())["cells"]
    assert {point["architecture"] for point in cell["points"]} == {option}
