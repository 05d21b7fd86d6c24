"""Crosscoders over two models trained for real: what was saved, judged anew in each of them by plain hooks."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.config.files import config_of
from sae_sweep.data.rows import BLOCK_ORDER, permutation
from sae_sweep.host.signals import Interrupted
from sae_sweep.interop import load_sae
from sae_sweep.launch.local import run_sweep
from sae_sweep.reporting.points import read_sweep
from sae_sweep.training.run.opening import open_group
from sae_sweep.training.run.sources import LanguageModelSource
from tests.e2e.kills import assert_same
from tests.evaluation.definitions import PlainSae, targets
from tests.evaluation.groups import planned
from tests.training.run.toy_sweeps import sigterm, strike
from tests.two_models import BOS, LAYER, MEMBERS, SPECIAL, PlainPair, overrides

HOOKS = [f"blocks.{LAYER}.hook_resid_post", f"models.1.blocks.{LAYER}.hook_resid_post"]
Members = Mapping[str, FinishedSae]


def edited(put_TD: Tensor, own: list[int]) -> Any:
    def edit(activation_TD: Tensor) -> Tensor:
        changed = activation_TD.clone()
        changed[own] = put_TD[own]
        return changed

    return edit


def fvu(x_ND: Tensor, hat_ND: Tensor) -> float:
    return ((x_ND - hat_ND).square().sum() / (x_ND - x_ND.mean(0)).square().sum()).item()


def later_fvu(rows: list[tuple[Tensor, Tensor]]) -> float:
    return fvu(*(torch.cat(each) for each in zip(*rows, strict=True)))


@pytest.mark.parametrize("name", MEMBERS)
def test_metrics_are_those_of_the_saved_files(
    two_models: Members, llama_folder: Path, tuned_folder: Path, name: str
) -> None:
    folder = two_models[name].folder
    cfg = json.loads((folder / "cfg.json").read_text())
    tensors = {key: t.double() for key, t in load_file(folder / "sae_weights.safetensors").items()}
    assert (cfg["architecture"], cfg["sites"], cfg["d_in"]) == ("crosscoder", 2, 64)
    assert cfg["metadata"]["hook_names"] == HOOKS
    assert cfg["metadata"]["model_names"] == [str(llama_folder), str(tuned_folder)]
    sae = PlainSae(cfg["activation"], tensors, cfg["apply_b_dec_to_input"], cfg.get("k"))
    pair = PlainPair(two_models[name], llama_folder, tuned_folder)
    ce: dict[tuple[int, str], list[Tensor]] = {}
    later: dict[int, list[tuple[Tensor, Tensor]]] = {0: [], 1: []}
    x, x_hat = [], []
    for row_T in pair.rows:
        own, at = pair.counted(row_T), torch.tensor(targets(row_T.tolist(), SPECIAL, BOS))
        x_TD = torch.cat(pair.activations(row_T), dim=1)
        hat_TD = sae.decode(sae.encode(x_TD))
        x.append(x_TD[own])
        x_hat.append(hat_TD[own])
        for number, (model, part_TD) in enumerate(zip(pair.models, hat_TD.chunk(2, dim=1), strict=True)):
            edits = {"clean": None, "zero": edited(torch.zeros_like(part_TD), own), "sae": edited(part_TD, own)}
            for how, edit in edits.items():
                log_TV = model.log_probabilities(row_T, "resid_post", LAYER, edit)
                ce.setdefault((number, how), []).append(-log_TV[at, row_T[at + 1]])
            both = [model.residuals(row_T, "resid_post", LAYER, edits[how], [LAYER + 1])[0] for how in ("clean", "sae")]
            later[number].append((both[0][own], both[1][own]))
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    mean = {key: torch.cat(values).mean().item() for key, values in ce.items()}
    expected = {f"ce_{how}": (mean[0, how] + mean[1, how]) / 2 for how in ("clean", "zero", "sae")}
    expected["ce_recovered"] = (expected["ce_zero"] - expected["ce_sae"]) / (expected["ce_zero"] - expected["ce_clean"])
    for number, which in enumerate(("first", "second")):
        clean, zero, spliced = (mean[number, how] for how in ("clean", "zero", "sae"))
        expected[f"ce_recovered_{which}"] = (zero - spliced) / (zero - clean)
        parts = (torch.cat(each).chunk(2, dim=1)[number] for each in (x, x_hat))
        expected[f"fvu_{which}"] = fvu(*parts)
    expected["fvu"] = fvu(torch.cat(x), torch.cat(x_hat))
    if name == "topk":
        expected["later_fvu"] = (later_fvu(later[0]) + later_fvu(later[1])) / 2
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=2e-3, abs=2e-4), key
    assert abs(mean[0, "clean"] - mean[1, "clean"]) > 0.01, "the models are not one"
    assert found["fvu_first"] != pytest.approx(found["fvu_second"], rel=1e-3)


def test_both_read_the_same_tokens(two_models: Members, llama_folder: Path, tuned_folder: Path, tmp_path: Path) -> None:
    """In float64, every activation of a block is what a plain hook sees, at one place for both; each model has the
    scale of its own. What a cache has kept is the same to the last bit."""
    config = two_models["topk"].member.config
    source = LanguageModelSource(replace(config, model=replace(config.model, dtype="float64")), HOOKS)
    block, pair = source.block(0), PlainPair(two_models["topk"], llama_folder, tuned_folder)
    rows, _ = source.training_rows(0)
    seen = [
        torch.cat([each[pair.counted(row_T)] for each in pair.activations(row_T)], dim=1)
        for row_T in torch.from_numpy(rows).long()
    ]
    x_ND = torch.cat(seen)
    place_N = torch.from_numpy(permutation(len(x_ND), BLOCK_ORDER, config.data.seed, 0))
    for number, hook in enumerate(HOOKS):
        own_ND = x_ND.chunk(2, dim=1)[number]
        torch.testing.assert_close(block.activations[hook][place_N], own_ND, rtol=1e-9, atol=1e-9)
        scale = json.loads((two_models["topk"].folder / "cfg.json").read_text())["metadata"]["input_scale"][number]
        assert scale == pytest.approx(32**0.5 / own_ND.norm(dim=1).mean().item(), rel=1e-4)
    assert [model.passes.harvest for model in source.models] == [2, 2]
    cached = replace(config, data=replace(config.data, cache=str(tmp_path)))
    streamed, written, again = (LanguageModelSource(one, HOOKS) for one in (config, cached, cached))
    for other in (written, again):
        for hook, x_BD in streamed.block(0).activations.items():
            assert torch.equal(other.block(0).activations[hook], x_BD)
    assert [model.passes.harvest for model in again.models] == [0, 0]
    assert len(list(tmp_path.glob("*/000000-models.1.blocks.1.hook_resid_post.safetensors"))) == 1


def test_it_is_read_back_and_reported(two_models: Members, llama_folder: Path, tuned_folder: Path) -> None:
    sae = load_sae(two_models["april"].folder)
    assert (sae.form.saelens, sae.sites, sae.d, sae.width) == ("standard", 2, 64, 40)
    labels = [one.label for one in two_models.values()]
    assert labels == ["topk_crosscoder-k_5-w40", "batchtopk_crosscoder-k_5-w40", "standard_april_crosscoder-l1_0.1-w40"]
    points = read_sweep(two_models["topk"].folder.parent).points
    assert {point["cell"]["model"] for point in points} == {f"{llama_folder} + {tuned_folder}"}
    assert {point["cell"]["site"]["in"] for point in points} == {HOOKS[0]}
    kept = two_models["topk"].content
    assert [key for key in kept if key.startswith("site.models")] == [
        "site.models",
        "site.models (the second's tokenizer)",
    ]
    assert kept["site.models"] != kept["model.path"]


def test_a_stopped_sweep_goes_on_bit_for_bit(
    llama_folder: Path, tuned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sweep(folder: Path) -> Path:
        shared = [*overrides(tmp_path, llama_folder, tuned_folder), f"output_dir={folder}", "training.tokens=2000"]
        outcomes = run_sweep([config_of([*shared, *MEMBERS[name]]) for name in ("batchtopk", "april")])
        assert {outcome.state for outcome in outcomes} == {"finished"}
        for file in folder.glob("small/*/config.yaml"):
            file.unlink()  # it states the output_dir
        return folder / "small"

    alone = sweep(tmp_path / "alone")

    with monkeypatch.context() as patch:
        strike(patch, LanguageModelSource, "block", 4, sigterm)
        with pytest.raises(Interrupted):
            sweep(tmp_path / "stopped")
    assert_same(sweep(tmp_path / "stopped"), alone)


def test_one_model_twice_has_nothing_of_its_own(llama_folder: Path, tmp_path: Path) -> None:
    """Rows for either are as long, and explain as much."""
    made = planned(overrides(tmp_path, llama_folder, llama_folder), {"one": MEMBERS["batchtopk"]})
    (result,) = open_group(made.group).run(made.folder).values()
    assert result.metrics is not None
    W_dec = load_sae(made.member_folder("one")).tensors["W_dec"]
    rows = torch.stack(W_dec.chunk(2, dim=1)).norm(dim=2)
    assert (rows[1] / rows.sum(0) - 0.5).abs().mean() < 0.05
    found = result.metrics
    assert found["fvu_first"] == pytest.approx(found["fvu_second"], rel=0.2)
