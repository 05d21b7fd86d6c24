"""A group of autoencoders and transcoders trained for real: what was saved, judged anew by whole forward passes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from sae_sweep.config.files import config_of
from sae_sweep.data.tokens import open_tokens
from sae_sweep.host.signals import Interrupted
from sae_sweep.launch.local import run_sweep
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.reporting.points import read_sweep
from sae_sweep.training.run.opening import open_group
from sae_sweep.training.run.sources import LanguageModelSource
from tests.e2e.kills import assert_same
from tests.evaluation.definitions import PlainSae, counted, targets
from tests.evaluation.groups import Planned, planned, small
from tests.training.run.toy_sweeps import sigterm, strike

EOS, BOS, PAD = 0, 1, 2
LAYER, BATCH, STEPS = 2, 48, 120
MEMBERS = {
    "topk": ("site=mlp", "sae=topk", "sae.k=5"),
    "topk_skip": ("site=mlp", "sae=topk", "sae.k=5", "sae.skip=true", "sae.centre=true"),
    "gated_skip": ("site=mlp", "sae=gated", "sae.l0=6", "sae.skip=true", "sae.input_scale=unit"),
    "batchtopk": ("site=mlp", "sae=batchtopk", "sae.k=5", "sae.input_scale=sqrt_d"),
    "april": ("site=mlp", "sae=standard_april", "sae.l1=1"),
    "later": ("site=resid_mid", "site.output=mlp_post", "sae=topk", "sae.k=5"),
    "output": ("site=mlp_out", "sae=topk", "sae.k=5"),
    "input": ("site=mlp_in", "sae=gated", "sae.l1=0.5"),
}
AT_THE_MLP = [name for name, overrides in MEMBERS.items() if overrides[0] == "site=mlp"]


def shared(output: Path, model: Path, text: Path) -> list[str]:
    return [
        *small(output, model, text),
        *(f"site.layer={LAYER}", f"training.batch_size={BATCH}", f"training.tokens={BATCH * STEPS}"),
        *("training.lr=1e-2", "training.lr_warmup_steps=10"),
    ]


Train = Callable[..., tuple[Planned, int]]


@pytest.fixture(scope="module")
def train(llama_folder: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Members by name to the finished group, and how often the model was run to train it."""

    def run(*names: str) -> tuple[Planned, int]:
        made = planned(
            shared(tmp_path_factory.mktemp("outputs"), llama_folder, text_file), {n: MEMBERS[n] for n in names}
        )
        opened = open_group(made.group)
        assert {result.reason for result in opened.run(made.folder).values()} == {None}
        assert isinstance(opened.source, LanguageModelSource)
        return made, opened.source.model.passes.harvest

    return run


@pytest.fixture(scope="module")
def trained(train: Train) -> tuple[Planned, int]:
    return train(*MEMBERS)


def metrics(made: Planned, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made.member_folder(name) / "metrics.json").read_text())
    return found


class Judged:
    """A Hugging Face model in float64 whose MLP is replaced by what a transcoder makes of the MLP's own input."""

    def __init__(self, folder: Path, saved: Path) -> None:
        self.module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
        config = json.loads((saved / "cfg.json").read_text())
        self.tensors = {name: t.double() for name, t in load_file(saved / "sae_weights.safetensors").items()}
        kind = config["architecture"].replace("skip_", "")
        activation = {"transcoder": "standard", "jumprelu_transcoder": "jumprelu", "topk_transcoder": "topk"}[kind]
        assert ("W_skip" in self.tensors) == ("skip" in config["architecture"])
        assert config["apply_b_dec_to_input"] is False
        self.sae = PlainSae(activation, self.tensors, False, config.get("k"))

    def output(self, x_TD: Tensor) -> Tensor:
        skipped = x_TD @ self.tensors["W_skip"].T if "W_skip" in self.tensors else 0
        return self.sae.decode(self.sae.encode(x_TD)) + skipped

    @torch.no_grad()
    def log_probabilities(self, row_T: Tensor, own: list[int], how: str) -> tuple[Tensor, Tensor, Tensor]:
        """[T, V]; and what the MLP gave and the transcoder gives at the counted positions."""
        seen: list[Tensor] = []

        def after(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            replaced, made = output[0].clone(), self.output(args[0][0])
            seen.extend((output[0][own], made[own]))
            if how != "clean":
                replaced[own] = made[own] if how == "spliced" else 0.0
            return replaced[None]

        with self.module.get_submodule(f"model.layers.{LAYER}.mlp").register_forward_hook(after):
            logits = self.module(input_ids=row_T[None]).logits[0]
        return logits.log_softmax(-1), seen[0], seen[1]


@pytest.mark.parametrize("name", AT_THE_MLP)
def test_metrics_are_those_of_the_saved_files(trained: tuple[Planned, int], llama_folder: Path, name: str) -> None:
    made, _ = trained
    config, judged = made.configs[name], Judged(llama_folder, made.member_folder(name))
    tokens = open_tokens(config.data, config.evaluation.tokens, AutoTokenizer.from_pretrained(llama_folder), 300)
    ce: dict[str, list[Tensor]] = {"clean": [], "spliced": [], "zero": []}
    kl, y, y_hat = [], [], []
    for row_T in torch.from_numpy(tokens.heldout).long():
        row = row_T.tolist()
        own, at = counted(row, {EOS, BOS, PAD}, BOS), torch.tensor(targets(row, {EOS, BOS, PAD}, BOS))
        log = {how: judged.log_probabilities(row_T, own, how) for how in ce}
        for how in ce:
            ce[how].append(-log[how][0][at, row_T[at + 1]])
        clean_NV, spliced_NV = log["clean"][0][at], log["spliced"][0][at]
        kl.append((clean_NV.exp() * (clean_NV - spliced_NV)).sum(1))
        y.append(log["clean"][1])
        y_hat.append(log["clean"][2])
    mean = {how: torch.cat(parts).mean().item() for how, parts in ce.items()}
    y_ND, error_ND = torch.cat(y), torch.cat(y) - torch.cat(y_hat)
    found = metrics(made, name)
    expected = {
        "ce_clean": mean["clean"],
        "ce_sae": mean["spliced"],
        "ce_zero": mean["zero"],
        "kl": torch.cat(kl).mean().item(),
        "mse": error_ND.square().sum(1).mean().item(),
        "fvu": (error_ND.square().sum() / (y_ND - y_ND.mean(0)).square().sum()).item(),
    }
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=2e-3), key
    assert len({found[key] for key in ("ce_clean", "ce_sae", "ce_zero")}) == 3


def test_training_runs_the_model_once_for_all(trained: tuple[Planned, int], train: Train) -> None:
    """Autoencoders and transcoders at five places cost what one member does; a target L0 takes one block more."""
    assert train("gated_skip")[1] == trained[1]


def test_cells_are_of_input_and_output(trained: tuple[Planned, int]) -> None:
    made, _ = trained
    folder = made.folder
    folder.mark([made.label(name) for name in MEMBERS], "finished", None)
    places = {point["member"]: point["cell"]["site"] for point in read_sweep(folder.root).points}
    block = f"blocks.{LAYER}."
    for name in AT_THE_MLP:
        assert places[made.label(name)] == {"in": f"{block}mlp.hook_in", "out": f"{block}hook_mlp_out"}
    assert places[made.label("later")] == {"in": f"{block}hook_resid_mid", "out": f"{block}mlp.hook_post"}
    assert places[made.label("output")] == {"in": f"{block}hook_mlp_out", "out": f"{block}hook_mlp_out"}
    assert made.label("gated_skip") == "gated_skip_transcoder-l0_6-w40-mlp_in-output_mlp_out"


def test_a_stopped_sweep_goes_on_bit_for_bit(
    llama_folder: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crosscoder too."""
    crosscoder = ("site=resid_post", "site.layer=null", "site.across=[1,3]", "sae=batchtopk", "sae.k=5")
    members = (MEMBERS["topk_skip"], MEMBERS["gated_skip"], MEMBERS["output"], crosscoder)

    def sweep(folder: Path) -> None:
        common = shared(folder, llama_folder, text_file)
        configs = [config_of([*common, *own]) for own in members]
        outcomes = run_sweep(configs)
        assert {outcome.state for outcome in outcomes} == {"finished"}

    sweep(tmp_path / "alone")

    with monkeypatch.context() as patch:
        strike(patch, LanguageModelSource, "block", 6, sigterm)
        with pytest.raises(Interrupted):
            sweep(tmp_path)
    sweep(tmp_path)
    for file in tmp_path.glob("**/config.yaml"):
        file.unlink()  # it states the output_dir
    assert_same(tmp_path / "small", tmp_path / "alone" / "small")


def test_forward_passes_of_a_mixed_plan_are_of_one_group(llama_folder: Path, text_file: Path, tmp_path: Path) -> None:
    made = planned(shared(tmp_path, llama_folder, text_file), MEMBERS)
    plan = plan_sweep(list(made.configs.values()))
    (group,) = plan.groups
    ends = ("mlp.hook_in", "hook_mlp_out", "hook_resid_mid", "mlp.hook_post")
    assert group.hooks == tuple(f"blocks.{LAYER}.{end}" for end in ends)
