"""Members at other sites and in other models, by plain hooks in float64; and trained on there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_sweep.analyses.moving import tuned as tuning
from sae_sweep.analyses.moving.targets import targets_of
from sae_sweep.analyses.moving.tuned import tuned
from sae_sweep.analyses.session import kept
from sae_sweep.analyses.session.finished import finished_saes
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.session import Session
from sae_sweep.analyses.session.told import unseen
from sae_sweep.analyses.transfer import Config, run
from sae_sweep.cli import main
from sae_sweep.interop import load_sae
from tests.analyses.plain import PlainModel, in_float64

OWN, NATIVE = "topk-l0_3-w24-L1-s0", "topk-l0_3-w24-L2-s0"
THERE = "blocks.2.hook_resid_post"


@pytest.fixture(scope="module")
def checkpoint(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep's model with other weights in its second block."""
    folder = shutil.copytree(llama_folder, tmp_path_factory.mktemp("other") / "later")
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if ".layers.1." in name and tensor.dim() == 2:
            weights[name] = 1.2 * tensor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def judged(sae: object, plain: PlainModel, layer: int, mean_D: torch.Tensor) -> dict[str, float]:
    """An SAE after a block, by plain hooks."""

    def make(x_RTD: torch.Tensor) -> torch.Tensor:
        return sae.decode(sae.encode(x_RTD.flatten(0, 1))).view_as(x_RTD)

    kl, ce = plain.kl_and_ce(layer, lambda x, where: torch.where(where[..., None], make(x), x))
    zero = plain.kl_and_ce(layer, lambda x, where: torch.where(where[..., None], 0, x))[1]
    clean = plain.kl_and_ce(layer, lambda x, _: x)[1]
    x_ND = plain.activation(layer)[plain.counted_RT]
    error = (x_ND - sae.decode(sae.encode(x_ND))).square().sum()
    return {
        "ce_recovered": (zero - ce) / (zero - clean),
        "kl": kl,
        "explained_variance": 1 - (error / (x_ND - mean_D).square().sum()).item(),
        "l0": (sae.encode(x_ND) > 0).sum(1).double().mean().item(),
    }


def test_by_plain_hooks(trained: Path, llama_folder: Path, checkpoint: Path) -> None:
    saes = [in_float64(trained, label) for label in (OWN, NATIVE)]
    session = replace(Session.of(saes), kept=kept.Kept())
    config = Config([str(checkpoint)], 0, 0.3)
    found = read({"a": run(session, saes, config)}, session.streams.batches)["a"].members
    plain = PlainModel(llama_folder, trained)
    other = plain.in_other(checkpoint)
    block = session.streams.opened[0].source.calibration().activations
    means = {hook: x_BD.mean(0) for hook, x_BD in block.items()}
    own, native = (
        judged(saes[0].sae, plain, 1, means["blocks.1.hook_resid_post"]),
        judged(saes[1].sae, plain, 2, means[THERE]),
    )
    there = judged(saes[0].sae, plain, 2, means[THERE])
    for name, value in there.items():
        number = found[OWN][f"{THERE} as_is {name}"]
        assert number.value == pytest.approx(value, rel=1e-5), name
        assert number.control == pytest.approx(native[name], rel=1e-5), name
        assert number.standard_error is not None
        assert found[OWN][f"home {name}"].value == pytest.approx(own[name], rel=1e-5), name
    spread = {hook: (x_BD - means[hook]).square().sum(1).mean().sqrt() for hook, x_BD in block.items()}
    scale = spread["blocks.1.hook_resid_post"] / spread[THERE]

    class Rescaled:
        """By its definition."""

        def encode(self, x_ND: torch.Tensor) -> torch.Tensor:
            return saes[0].sae.encode(scale * (x_ND - means[THERE]) + means["blocks.1.hook_resid_post"])

        def decode(self, f_NF: torch.Tensor) -> torch.Tensor:
            return (saes[0].sae.decode(f_NF) - means["blocks.1.hook_resid_post"]) / scale + means[THERE]

    for name, value in judged(Rescaled(), plain, 2, means[THERE]).items():
        assert found[OWN][f"{THERE} rescaled {name}"].value == pytest.approx(value, rel=1e-5), name
    in_other = found[OWN]["blocks.1.hook_resid_post of later as_is ce_recovered"]
    wanted = judged(saes[0].sae, other, 1, means[THERE])["ce_recovered"]
    assert in_other.value == pytest.approx(wanted, rel=1e-5)
    assert in_other.control == pytest.approx(own["ce_recovered"], rel=1e-5)
    assert not any("tuned" in name for name in found[OWN])


def test_a_few_tokens_more(trained: Path, checkpoint: Path) -> None:
    """Trained on elsewhere it is another SAE, which is judged as the sweep's members are."""
    words = [f"analysis.transfer.models=[{checkpoint}]", "analysis.transfer.tokens=480"]
    assert main(["eval", str(trained), "--analysis=transfer", f"--member={OWN},{NATIVE}", *words]) == 0
    found = json.loads((trained / "analyses" / "transfer.json").read_text())
    numbers = found["members"][OWN]
    for place in (THERE, "blocks.1.hook_resid_post of later"):
        states = [numbers[f"{place} {state} explained_variance"]["value"] for state in ("as_is", "rescaled", "tuned")]
        assert len(set(states)) == 3, "every state is another"
        assert numbers[f"{place} tuned l0"]["n"] == numbers[f"{place} as_is l0"]["n"]
    assert numbers[f"{THERE} tuned explained_variance"]["value"] > numbers[f"{THERE} as_is explained_variance"]["value"]
    assert found["figure"]["kind"] == "map"
    columns = found["figure"]["series"][0]["x"]
    assert columns == [
        "blocks.1.hook_resid_post",
        THERE,
        "blocks.1.hook_resid_post of later",
        "blocks.2.hook_resid_post of later",
    ]
    row = next(one for one in found["figure"]["series"] if one["name"] == "blocks.1.hook_resid_post, as is")
    home, there = numbers["home ce_recovered"]["value"], numbers[f"{THERE} as_is ce_recovered"]["value"]
    assert row["y"][:2] == [home, there]
    assert row["y"][3] is None
    assert not list((trained / ".state" / "analyses").iterdir()), "nothing of it is left"


def test_it_is_trained_on_from_the_member_and_once(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = targets_of(finished_saes(trained, [OWN, NATIVE]), [])[:1]
    (folder,) = tuned(tmp_path, targets, 480, 1e-6, unseen()).values()
    made, own = load_sae(folder), targets[0].member.sae
    cosine_F = torch.nn.functional.cosine_similarity(made.tensors["W_dec"], own.tensors["W_dec"], dim=1)
    assert cosine_F.min() > 0.999, "at a tiny learning rate it stays what it was"
    card = json.loads((folder / "cfg.json").read_text())["metadata"]
    assert card["hook_name"] == THERE
    assert card["training_tokens"] == 480
    monkeypatch.setattr(tuning, "open_group", lambda *_: pytest.fail("it is finished"))
    assert list(tuned(tmp_path, targets, 480, 1e-6, unseen()).values()) == [folder]


def test_another_model_s_pass_goes_on(trained: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies in the last of three batches of the other model; who goes on reads that one alone."""
    from sae_sweep.analyses.moving import elsewhere

    monkeypatch.setattr(kept, "SAVE_SECONDS", 0.0)
    saes = finished_saes(trained, [OWN])
    session, config = Session.of(saes), Config([str(checkpoint)], 0, 0.3)
    (whole,) = read({"a": run(session, saes, config)}, session.streams.batches).values()
    added, calls = elsewhere.Moved.add, []

    def dies(self: object, batch: object) -> None:
        calls.append(batch.first)
        if len(calls) == 3:
            raise KeyboardInterrupt
        added(self, batch)

    monkeypatch.setattr(elsewhere.Moved, "add", dies)
    for attempt in range(2):
        keeps = kept.Kept(trained / "kept.safetensors", "a")
        again = replace(session, kept=keeps)
        reading = {"a": run(again, saes, config)}
        if attempt == 0:
            with pytest.raises(KeyboardInterrupt):
                read(reading, session.streams.batches, {"a": keeps})
        else:
            (found,) = read(reading, session.streams.batches, {"a": keeps}).values()
            assert found.members == whole.members
    assert calls == [0, 16, 32, 32]
    keeps.forget()


@pytest.mark.parametrize(
    ("members", "words", "said"),
    [
        (OWN, [], ": the members have one site, or sites of different widths; give models=[FOLDER,...]"),
        (OWN, ["tokens=-1"], ".tokens=-1 must not be negative"),
        (OWN, ["lr=0"], ".lr=0 must be above 0"),
        (OWN, ["models=[{demo}]"], ".models: {demo} has another vocabulary than the sweep's model; give"),
        (OWN, ["models=[nowhere/at/all]"], ".models: "),
        (OWN, ["models=[{narrow}]"], ".models: {narrow} has 16 numbers at blocks.1.hook_resid_post, and "),
        (OWN, ["models=[{shallow}]"], ".models: {shallow}: site.layer=1"),
    ],
)
def test_what_cannot_be_asked(
    trained: Path,
    build_model: object,
    members: str,
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from transformers import LlamaConfig

    import sae_sweep

    places = {"demo": Path(sae_sweep.__file__).parent / "assets" / "demo_lm"}
    if "narrow" in said:
        places["narrow"] = build_model("narrow", LlamaConfig, hidden_size=16, num_key_value_heads=4)
    if "shallow" in said:
        places["shallow"] = build_model("shallow", LlamaConfig, num_hidden_layers=1, num_key_value_heads=4)
    asked = [f"analysis.transfer.{word.format(**places)}" for word in words]
    assert main(["eval", str(trained), "--analysis=transfer", f"--member={members}", *asked]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sae-sweep: error: analysis.transfer{said.format(**places)}")
