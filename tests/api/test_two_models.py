"""A crosscoder over two models from Python: as it is judged, on text, in either model."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import sae_sweep as ss
from sae_sweep import cli
from sae_sweep.analyses.session.finished import FinishedSae

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture
def sae(two_models: Mapping[str, FinishedSae]) -> ss.Sae:
    return ss.load(two_models["topk"].folder)


def test_it_reads_both(sae: ss.Sae, llama_folder: Path, tuned_folder: Path) -> None:
    """Its codes of a text are those of both models' activations side by side."""
    first, second = sae.model(), sae.model(second=True)
    assert [model.running.config.path for model in (first, second)] == [str(llama_folder), str(tuned_folder)]
    x = torch.cat([ss.harvest(model, HOOK, "def f(x):") for model in (first, second)], dim=1)
    codes = sae.encode(x)
    torch.testing.assert_close(sae.latents(first, "def f(x):").codes, codes)
    torch.testing.assert_close(sae.latents(second, "def f(x):").codes, codes)
    assert sae(x).shape == x.shape
    latent = int(sae.density().argmax())
    assert len(sae.top_contexts(latent, n=2).top) == 2
    rows = sae.W_dec[latent].chunk(2)
    for model, row in zip((first, second), rows, strict=True):
        head: Any = model.module.get_output_embeddings()  # type: ignore[operator]  # typed as a tensor or module
        raised = sae.logit_effects(latent, n=1, model=model).positive[0][1]
        assert raised == pytest.approx((head.weight @ row).max().item(), rel=1e-4)
        clean = ss.harvest(model, HOOK, "def f(x):")
        with sae.steer(model, {latent: 2.0}):
            steered = ss.harvest(model, "blocks.2.hook_resid_pre", "def f(x):")
        torch.testing.assert_close(steered[1:] - clean[1:], (2 * row).expand_as(clean[1:]), rtol=1e-3, atol=1e-3)
    told = "a crosscoder .* is of several sites, some of which the model has not computed yet"
    with pytest.raises(ss.ConfigError, match=told), sae.splice(first):
        first("def f(x):")


def test_it_is_judged_as_in_its_sweep(sae: ss.Sae, two_models: Mapping[str, FinishedSae]) -> None:
    found = ss.evaluate([sae]).iloc[0]
    for key in ("l0", "ce_recovered", "ce_recovered_first", "ce_recovered_second", "fvu_second", "later_fvu"):
        assert found[key] == two_models["topk"].metrics[key]


def test_no_other_format_has_one(
    two_models: Mapping[str, FinishedSae], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(two_models["topk"].folder)
    for form, said in {
        "dictionary-learning": "dictionary_learning has no class for transcoders, crosscoders",
        "sparsify": "sparsify has TopK alone: no crosscoder",
        "circuit-tracer": "circuit-tracer has transcoders",
        "neuronpedia": "SAELens has no architecture for it (crosscoder)",
    }.items():
        assert cli.main(["export", folder, "--format", form, "--out", str(tmp_path / form)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
        assert not (tmp_path / form).exists()


def test_the_commands(
    two_models: Mapping[str, FinishedSae], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is judged again, and asked."""
    label = two_models["april"].label
    root = Path(shutil.copytree(two_models["april"].folder.parent, tmp_path / "sweep"))
    assert cli.main(["eval", str(root / label), "--tokens", "320"]) == 0
    assert cli.main(["eval", str(root), "--analysis", "diffing", "--member", label]) == 0
    numbers = json.loads((root / label / "analyses" / "diffing.json").read_text())["numbers"]
    assert {"first_only", "second_only", "shared"} <= set(numbers)
    assert cli.main(["eval", str(root), "--analysis", "latents,perturbation", "--member", label]) == 0
    capsys.readouterr()
