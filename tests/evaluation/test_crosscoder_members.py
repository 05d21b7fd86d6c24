"""A crosscoder trained for real beside an autoencoder: what was saved, judged anew at each of its sites."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

from sae_sweep.data.tokens import open_tokens
from sae_sweep.interop import load_sae
from sae_sweep.reporting.points import read_sweep
from sae_sweep.training.run.opening import open_group
from tests.evaluation.definitions import PlainModel, PlainSae, counted, targets
from tests.evaluation.groups import Planned, planned, small

EOS, BOS, PAD = 0, 1, 2
LAYERS, BATCH, STEPS = (1, 3), 48, 80
ACROSS = ("site.layer=null", "site.across=[1,3]")
MEMBERS = {
    "topk": (*ACROSS, "sae=topk", "sae.k=5", "sae.input_scale=sqrt_d"),
    "gated": (*ACROSS, "sae=gated", "sae.l0=6", "sae.centre=true"),
    "april": (*ACROSS, "sae=standard_april", "sae.l1=1", "sae.input_scale=unit"),
    "one": ("site.layer=1", "sae=topk", "sae.k=5"),
}


@pytest.fixture(scope="module")
def trained(llama_folder: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Planned:
    shared = [
        *small(tmp_path_factory.mktemp("outputs"), llama_folder, text_file),
        *(f"training.batch_size={BATCH}", f"training.tokens={BATCH * STEPS}", "training.lr=5e-3"),
    ]
    made = planned(shared, MEMBERS)
    assert {result.reason for result in open_group(made.group).run(made.folder).values()} == {None}
    return made


@pytest.mark.parametrize("name", ["topk", "gated", "april"])
def test_metrics_are_those_of_the_saved_files(trained: Planned, llama_folder: Path, name: str) -> None:
    folder, config = trained.member_folder(name), trained.configs[name]
    cfg = json.loads((folder / "cfg.json").read_text())
    tensors = {key: t.double() for key, t in load_file(folder / "sae_weights.safetensors").items()}
    assert (cfg["architecture"], cfg["sites"], cfg["d_in"]) == ("crosscoder", 2, 64)
    assert cfg["metadata"]["hook_names"] == [f"blocks.{layer}.hook_resid_post" for layer in LAYERS]
    sae = PlainSae(cfg["activation"], tensors, cfg["apply_b_dec_to_input"], cfg.get("k"))
    model = PlainModel("llama", llama_folder)
    tokens = open_tokens(config.data, config.evaluation.tokens, AutoTokenizer.from_pretrained(llama_folder), 300)
    ce: dict[str, list[Tensor]] = {"clean": [], "spliced": [], "zero": []}
    x, x_hat = [], []
    for row_T in torch.from_numpy(tokens.heldout).long():
        row = row_T.tolist()
        own, at = counted(row, {EOS, BOS, PAD}, BOS), torch.tensor(targets(row, {EOS, BOS, PAD}, BOS))
        seen = [model.activation("resid_post", layer, row_T) for layer in LAYERS]
        x_TD = torch.cat(seen, dim=1)
        hat_TD = sae.decode(sae.encode(x_TD))
        x.append(x_TD[own])
        x_hat.append(hat_TD[own])
        for layer, part_TD in zip(LAYERS, hat_TD.chunk(2, dim=1), strict=True):
            for how, put_TD in (("spliced", part_TD), ("zero", torch.zeros_like(part_TD)), ("clean", None)):

                def edit(activation_TD: Tensor, put_TD: Tensor | None = put_TD, own: list[int] = own) -> Tensor:
                    changed = activation_TD.clone()
                    if put_TD is not None:
                        changed[own] = put_TD[own]
                    return changed

                log_TV = model.log_probabilities(row_T, "resid_post", layer, edit)
                ce[how].append(-log_TV[at, row_T[at + 1]])
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    x_ND, error_ND = torch.cat(x), torch.cat(x) - torch.cat(x_hat)
    assert found["mse"] == pytest.approx(error_ND.square().sum(1).mean().item(), rel=2e-3)
    assert found["fvu"] == pytest.approx(
        (error_ND.square().sum() / (x_ND - x_ND.mean(0)).square().sum()).item(), rel=2e-3
    )
    for key, how in (("ce_clean", "clean"), ("ce_sae", "spliced"), ("ce_zero", "zero")):
        assert found[key] == pytest.approx(torch.cat(ce[how]).mean().item(), rel=2e-3), key


def test_it_is_read_back_and_reported(trained: Planned) -> None:
    sae = load_sae(trained.member_folder("gated"))
    assert (sae.form.saelens, sae.sites, sae.d, sae.width, sae.subtract_b_dec) == ("gated", 2, 64, 40, False)
    trained.folder.mark([trained.label(name) for name in MEMBERS], "finished", None)
    sites = {point["member"]: point["cell"]["site"]["in"] for point in read_sweep(trained.folder.root).points}
    assert sites[trained.label("topk")] == "blocks.1.hook_resid_post + blocks.3.hook_resid_post"
    assert sites[trained.label("one")] == "blocks.1.hook_resid_post"
    assert trained.label("april").startswith("standard_april_crosscoder-l1_1")
