"""Cross-layer transcoders trained for real: what was saved, judged anew by whole forward passes without their MLPs."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

import sae_sweep as ss
from sae_sweep.cli import main
from sae_sweep.config.files import config_of
from sae_sweep.data.tokens import open_tokens
from sae_sweep.errors import ConfigError
from sae_sweep.host.signals import Interrupted
from sae_sweep.interop import load_sae, told
from sae_sweep.interop.command.export import export
from sae_sweep.launch.local import run_sweep
from sae_sweep.training.run.sources import LanguageModelSource
from tests.evaluation.definitions import counted, targets
from tests.evaluation.groups import small
from tests.training.run.toy_sweeps import sigterm, strike

EOS, BOS, PAD = 0, 1, 2
ACROSS, BATCH, STEPS, D, WIDTH = (0, 1, 3), 48, 60, 32, 40
MEMBERS = {
    "batchtopk": ("sae=batchtopk", "sae.l0=6"),
    "topk": ("sae=topk", "sae.k=6", "sae.input_scale=unit", "sae.centre=true"),
    "anthropic": ("sae=jumprelu_anthropic", "sae.l0_coefficient=0.5"),
    "gated": ("sae=gated", "sae.l1=0.2", "sae.centre=true"),
}


def overrides(output: Path, model: Path, text: Path, name: str) -> list[str]:
    return [
        *small(output, model, text),
        *("site=clt", f"site.across={list(ACROSS)}".replace(" ", ""), *MEMBERS[name]),
        *(f"training.batch_size={BATCH}", f"training.tokens={BATCH * STEPS}", "training.lr=5e-3"),
    ]


@pytest.fixture(scope="module")
def trained(llama_folder: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each member of one sweep."""
    output = tmp_path_factory.mktemp("outputs")
    outcomes = run_sweep([config_of(overrides(output, llama_folder, text_file, name)) for name in MEMBERS])
    assert [outcome.reason for outcome in outcomes] == [None] * len(MEMBERS)
    return dict(zip(MEMBERS, (outcome.folder for outcome in outcomes), strict=True))


class Plain:
    """What is saved, in float64 and with every decoder as a matrix [F, L, D]."""

    def __init__(self, folder: Path) -> None:
        self.cfg: dict[str, Any] = json.loads((folder / "cfg.json").read_text())
        self.t = {name: tensor.double() for name, tensor in load_file(folder / "sae_weights.safetensors").items()}
        self.layers = self.cfg["layers"]
        rows = iter(self.t["W_dec"].split(1))
        self.decoders = torch.zeros(self.layers, WIDTH, self.layers, D, dtype=torch.float64)
        for layer in range(self.layers):
            for latent in range(WIDTH):
                for written in range(layer, self.layers):
                    self.decoders[layer, latent, written] = next(rows)[0]
        assert next(rows, None) is None

    def codes(self, x_TD: Tensor, layer: int) -> Tensor:
        own = slice(layer * WIDTH, (layer + 1) * WIDTH)
        t = {name: tensor[own] for name, tensor in self.t.items() if name not in ("W_enc", "W_dec", "b_dec")}
        z = x_TD @ self.t["W_enc"][:, own]
        match self.cfg["activation"]:
            case "topk":
                z = z + t["b_enc"]
                return torch.where(z >= z.topk(self.cfg["k"], dim=1).values[:, -1:], z, 0).clamp(min=0)
            case "jumprelu":
                z = z + t["b_enc"]
                return z * (z > t["threshold"])
        raise AssertionError(self.cfg["activation"])

    def given(self, inputs: list[Tensor]) -> list[Tensor]:
        codes = [self.codes(x_TD, layer) for layer, x_TD in enumerate(inputs)]
        biases = self.t["b_dec"].split(D)
        return [
            sum(f @ self.decoders[layer, :, written] for layer, f in enumerate(codes)) + biases[written]
            for written in range(self.layers)
        ]


class Model:
    """A Hugging Face model in float64, run whole each time."""

    def __init__(self, folder: Path) -> None:
        self.module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()

    @contextmanager
    def hooked(self, make: Any) -> Iterator[None]:
        with ExitStack() as stack:
            for place, layer in enumerate(ACROSS):
                module: nn.Module = self.module.get_submodule(f"model.layers.{layer}.mlp")
                handle = module.register_forward_hook(lambda _, args, out, p=place: make(p, args[0][0], out[0]))
                stack.callback(handle.remove)
            yield

    @torch.no_grad()
    def clean(self, row_T: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        inputs, outputs = list[Tensor](), list[Tensor]()

        def take(_: int, x_TD: Tensor, y_TD: Tensor) -> None:
            inputs.append(x_TD)
            outputs.append(y_TD)

        with self.hooked(take):
            log_TV = self.module(input_ids=row_T[None]).logits[0].log_softmax(-1)
        return log_TV, inputs, outputs

    @torch.no_grad()
    def spliced(self, row_T: Tensor, own: list[int], values: list[Tensor]) -> Tensor:
        def put(place: int, _: Tensor, y_TD: Tensor) -> Tensor:
            changed = y_TD.clone()
            changed[own] = values[place][own]
            return changed[None]

        with self.hooked(put):
            log_TV: Tensor = self.module(input_ids=row_T[None]).logits[0].log_softmax(-1)
        return log_TV


@pytest.mark.parametrize("name", ["batchtopk", "topk", "gated"])
def test_metrics_are_those_of_the_saved_files(trained: dict[str, Path], llama_folder: Path, name: str) -> None:
    """All MLPs give way at once, to what the codes of the clean pass say."""
    folder = trained[name]
    config, plain, model = config_of_member(folder), Plain(folder), Model(llama_folder)
    tokens = open_tokens(config.data, config.evaluation.tokens, AutoTokenizer.from_pretrained(llama_folder), 300)
    ce: dict[str, list[Tensor]] = {"clean": [], "spliced": [], "zero": []}
    kl, y, y_hat, codes = [], list[Tensor](), list[Tensor](), list[Tensor]()
    for row_T in torch.from_numpy(tokens.heldout).long():
        row = row_T.tolist()
        own, at = counted(row, {EOS, BOS, PAD}, BOS), torch.tensor(targets(row, {EOS, BOS, PAD}, BOS))
        clean_TV, inputs, outputs = model.clean(row_T)
        given = plain.given(inputs)
        log = {"clean": clean_TV, "spliced": model.spliced(row_T, own, given)}
        log["zero"] = model.spliced(row_T, own, [torch.zeros_like(out) for out in outputs])
        for how, log_TV in log.items():
            ce[how].append(-log_TV[at, row_T[at + 1]])
        kl.append((clean_TV[at].exp() * (clean_TV[at] - log["spliced"][at])).sum(1))
        y.append(torch.stack(outputs, dim=1)[own])
        y_hat.append(torch.stack(given, dim=1)[own])
        codes.append(torch.stack([plain.codes(x, layer)[own] for layer, x in enumerate(inputs)], dim=1))
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    y_NLD, error_NLD, f_NLF = torch.cat(y), torch.cat(y) - torch.cat(y_hat), torch.cat(codes)
    varied = (y_NLD - y_NLD.mean(0)).square()
    expected = {
        **{f"ce_{key}": torch.cat(ce[how]).mean().item() for key, how in CE.items()},
        "kl": torch.cat(kl).mean().item(),
        "fvu": (error_NLD.square().sum() / varied.sum()).item(),
        "l0": (f_NLF > 0).sum((1, 2)).double().mean().item(),
        "alive": (f_NLF > 0).any(0).double().mean().item(),
    }
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=3e-3), key
    assert len({found[f"ce_{key}"] for key in CE}) == 3
    layers = json.loads((folder / "layers.json").read_text())["layers"]
    for place, own_layer in enumerate(layers):
        fires_NF = f_NLF[:, place] > 0
        assert own_layer["reads"] == f"blocks.{ACROSS[place]}.mlp.hook_in"
        assert own_layer["writes"] == f"blocks.{ACROSS[place]}.hook_mlp_out"
        fvu = (error_NLD[:, place].square().sum() / varied[:, place].sum()).item()
        assert own_layer["fvu"] == pytest.approx(fvu, rel=3e-3)
        assert own_layer["l0"] == pytest.approx(fires_NF.sum(1).double().mean().item(), rel=3e-3)
        assert own_layer["alive"] == pytest.approx(fires_NF.any(0).double().mean().item(), rel=3e-3)
    assert sum(own_layer["l0"] for own_layer in layers) == pytest.approx(found["l0"], rel=1e-6)


CE = {"clean": "clean", "sae": "spliced", "zero": "zero"}


def config_of_member(folder: Path) -> Any:
    return ss.load(folder).home.config


def test_it_is_one_cell_and_has_its_name(trained: dict[str, Path]) -> None:
    root = trained["topk"].parent
    pareto = json.loads((root / "pareto.json").read_text())
    (cell,) = pareto["cells"]
    assert cell["key"]["site"] == {
        "in": " + ".join(f"blocks.{layer}.mlp.hook_in" for layer in ACROSS),
        "out": " + ".join(f"blocks.{layer}.hook_mlp_out" for layer in ACROSS),
    }
    assert trained["topk"].name.startswith("topk_clt-k_6-w40")


def test_it_learns(trained: dict[str, Path]) -> None:
    """Sixty steps on a model of random weights, where L0 is not small: every layer's outputs are explained in part."""
    for name in ("gated", "anthropic"):
        for own in json.loads((trained[name] / "layers.json").read_text())["layers"]:
            assert own["fvu"] < 0.8, (name, own)


def test_from_python(trained: dict[str, Path]) -> None:
    sae = ss.load(trained["batchtopk"])
    assert sae.reads == "blocks.0.mlp.hook_in"
    assert sae.writes == tuple(f"blocks.{layer}.hook_mlp_out" for layer in ACROSS)
    assert (sae.cfg.d_in, sae.cfg.d_out, sae.cfg.d_sae) == (3 * D, 3 * D, 3 * WIDTH)
    model = sae.model()
    codes = sae.latents(model, "the cat sat on the mat").codes
    assert codes.shape[1] == 3 * WIDTH
    latent = int(codes.sum(0).argmax())
    with sae.steer(model, {latent: 50.0}):
        steered = model("the cat sat")
    assert not torch.allclose(steered, model("the cat sat"))
    assert sae.top_contexts(latent, model=model).density > 0
    with pytest.raises(ConfigError, match="cross-layer transcoder"), sae.splice(model):
        pass
    again = ss.evaluate([sae], model)
    metrics = json.loads((trained["batchtopk"] / "metrics.json").read_text())
    assert float(again["ce_sae"].iloc[0]) == pytest.approx(metrics["ce_sae"], rel=1e-6)


def test_it_is_judged_again_and_no_analysis_reads_it(
    trained: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = trained["topk"].parent
    assert main(["eval", str(root), "--tokens", "320"]) == 0
    assert "topk_clt-k_6" in capsys.readouterr().out
    for arguments in (["--analysis", "matching"], ["--format", "saebench"]):
        assert main(["eval", str(root), *arguments]) == 2
        assert "is a cross-layer transcoder" in capsys.readouterr().err


def test_a_stopped_sweep_goes_on_bit_for_bit(
    trained: dict[str, Path], llama_folder: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that was trained with others is what it is alone."""
    config = config_of(overrides(tmp_path, llama_folder, text_file, "batchtopk"))

    with monkeypatch.context() as patch:
        strike(patch, LanguageModelSource, "block", 4, sigterm)
        with pytest.raises(Interrupted):
            run_sweep([config])
    (outcome,) = run_sweep([config])
    for file in ("sae_weights.safetensors", "metrics.json", "layers.json"):
        assert (outcome.folder / file).read_bytes() == (trained["batchtopk"] / file).read_bytes(), file


@pytest.mark.parametrize("name", ["batchtopk", "gated"])
def test_the_folder_of_circuit_tracer(trained: dict[str, Path], tmp_path: Path, name: str) -> None:
    """Names and shapes are those that its loader asks for, one by one; what is read back gives the same."""
    folder = circuit_tracer_numbering(trained[name], tmp_path / "member")
    out = tmp_path / "out"
    export([str(folder), "--format", "circuit-tracer", "--out", str(out)])
    assert sorted(file.name for file in out.iterdir()) == sorted(
        ["config.yaml", *(f"{part}_{layer}.safetensors" for part in ("W_enc", "W_dec") for layer in range(3))]
    )
    for layer in range(3):
        encodes, decodes = (load_file(out / f"{part}_{layer}.safetensors") for part in ("W_enc", "W_dec"))
        assert {key: tuple(tensor.shape) for key, tensor in (encodes | decodes).items()} == {
            f"W_enc_{layer}": (WIDTH, D),
            f"b_enc_{layer}": (WIDTH,),
            f"threshold_{layer}": (WIDTH,),
            f"b_dec_{layer}": (D,),
            f"W_dec_{layer}": (WIDTH, 3 - layer, D),
        }
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["model_kind"], config["scan"]) == ("cross_layer_transcoder", None)
    assert (config["feature_input_hook"], config["feature_output_hook"]) == ("mlp.hook_in", "hook_mlp_out")
    own, again = load_sae(folder), load_sae(out)
    x_BD = torch.randn(50, 3 * D, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.encode(x_BD), own.encode(x_BD))
    torch.testing.assert_close(again.decode(again.encode(x_BD)), own.decode(own.encode(x_BD)))
    assert told(out)["hook_names_out"] == [f"blocks.{layer}.hook_mlp_out" for layer in range(3)]
    assert ss.load(out, model="org/small").writes == tuple(told(out)["hook_names_out"])
    assert main(["import", str(out), "--out", str(tmp_path / "imported"), "--model", "org/small"]) == 0
    imported = ss.load(tmp_path / "imported")
    assert (imported.home.hooks, imported.writes) == (ss.load(out).home.hooks, ss.load(out).writes)
    assert torch.equal(imported.encode(x_BD), again.encode(x_BD))


def circuit_tracer_numbering(folder: Path, made: Path) -> Path:
    """A copy of a member whose layers are 0, 1 and 2."""
    made.mkdir()
    for file in ("cfg.json", "sae_weights.safetensors"):
        (made / file).write_bytes((folder / file).read_bytes())
    cfg = json.loads((made / "cfg.json").read_text())
    for key in ("hook_names", "hook_names_out"):
        cfg["metadata"][key] = [hook.replace("blocks.3", "blocks.2") for hook in cfg["metadata"][key]]
    (made / "cfg.json").write_text(json.dumps(cfg))
    return made


@pytest.mark.parametrize(
    ("name", "named", "said"),
    [
        ("batchtopk", "circuit-tracer", "circuit-tracer numbers layers from 0 on"),
        ("topk", "circuit-tracer", "circuit-tracer has cross-layer transcoders of ReLU or thresholds"),
        ("batchtopk", "sparsify", "sparsify has TopK alone"),
        ("batchtopk", "dictionary_learning", "no class for transcoders"),
        ("batchtopk", "saebench", "SAELens has no architecture for it (cross_layer_transcoder)"),
    ],
)
def test_exports_that_cannot_be(trained: dict[str, Path], tmp_path: Path, name: str, named: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        export([str(trained[name]), "--format", named, "--out", str(tmp_path / "out")])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_damaged_folders(trained: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder = circuit_tracer_numbering(trained["batchtopk"], tmp_path / "member")
    export([str(folder), "--format", "circuit-tracer", "--out", str(out)])

    def refused(place: Path) -> str:
        with pytest.raises(ValueError) as caught:
            load_sae(place)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    kept = (out / "W_dec_1.safetensors").read_bytes()
    (out / "W_dec_1.safetensors").write_bytes(kept[:200])
    assert "W_dec_1.safetensors is damaged" in refused(out)
    (out / "W_dec_1.safetensors").write_bytes((out / "W_dec_2.safetensors").read_bytes())
    assert "has a tensor W_dec_2: not those of layer 1" in refused(out)
    (out / "W_dec_1.safetensors").unlink()
    assert "W_dec_1.safetensors is missing" in refused(out)
    (out / "config.yaml").write_text("model_kind: transcoder_set\n")
    assert "transcoder_set is not cross_layer_transcoder" in refused(out)
    cfg = json.loads((folder / "cfg.json").read_text())
    for change, said in (
        ({"layers": 7}, "which 7 layers cannot share"),
        ({"layers": "three"}, "layers is 'three', not a whole number"),
        ({"layers": 1}, "which 1 layers cannot share"),
        ({"activation": "swish"}, "swish is not one of"),
        ({"d_sae": 60}, "W_enc is (32, 120), not (32, 60)"),
    ):
        (folder / "cfg.json").write_text(json.dumps(cfg | change))
        assert said in refused(folder)
