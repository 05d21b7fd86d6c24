"""The command line's manners: refusals in one line, quick answers, nothing written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sae_sweep import __version__
from sae_sweep.cli import COMMANDS, main
from sae_sweep.errors import ConfigError
from sae_sweep.launch.hydra.command_line import prepared
from tests.e2e.told import refusal


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("training.lrr=1",), "training.lrr: no such key; did you mean training.lr?"),
        (("speed=1",), "speed: no such key; did you mean seed?"),
        (("trainin.tokens=1",), "trainin.tokens: no such key; did you mean training.tokens?"),
        (("lr=1",), "lr: no such key; did you mean training.lr?"),
        (("experment=demo",), "experment: no such key; did you mean experiment?"),
        (("wandb.project=x",), "wandb.project: no such key; did you mean tracking.project?"),
        (("modl=demo",), "modl: no such key; did you mean model?"),
        (("hydra/launcher=submitit_slurm",), "submitit_slurm: no such option; did you mean slurm?"),
        (
            ("sae.width=8", "sae.expansion=2"),
            "sae.width=8 and sae.expansion=2 both set the number of latents; give one",
        ),
        (("sae.width=8", "sae.width=-5"), "sae.width=-5 gives no latent"),
        (("+analysis=matching",), "analysis: is asked of finished members; give `sae-sweep eval DIR --analysis NAME`"),
        (("hydra.launcher.partition=gpu",), "hydra.launcher.partition: no such key of the hydra.launcher that is"),
        (("site.across=[0,9]",), "site.across=[0, 9] is beyond the model: 0 to 3"),
        (("experiment=e2e_finetune", "dry_run=true"), "train it first: sae-sweep +experiment=e2e"),
        (("explain", "traning.lr"), "explain: traning.lr is no key of configs/; did you mean training.lr?"),
        (("explain",), "explain: takes one key or group"),
        (("model=local", "model.path=gone"), "model.path=gone: no such folder here"),
        (("--resolve", "seed=1"), "--resolve: says how --cfg job prints a config"),
        (("--cfg", "nope"), "--cfg: takes job or hydra or all, not nope"),
        (("--multi", "seed=1"), "--multi: no such option; did you mean --multirun?"),
        (("output_dir='~nobody_here/x'",), "output_dir=~nobody_here/x: this machine knows no such user"),
        (("+xyz=1",), "xyz: no such key; `sae-sweep --help` lists them"),
        (("seed.x=1",), "seed.x: no such key; did you mean seed?"),
        (
            ("sae=gatd",),
            "sae=gatd: no such option; did you mean gated? there is batchtopk, ",
        ),
        (
            ("experiment=dmeo",),
            "experiment=dmeo: no such option; did you mean demo? there is architectures, ",
        ),
        (("model=nope", "dry_run=true"), "model=nope: no such option; there is demo, gemma-2-2b, gemma-2-9b"),
        (("training=5",), "training=5: training is a group of keys; choose one of its files"),
        (("sae=[1,2]",), "sae=[1,2]: sae is a group of keys; choose one of its files"),
        (("sae=[topk,gated]",), "sae=[topk,gated]: sae is a group of keys; choose one of its files"),
        (("sae=topk,3",), "sae=topk,3: sae is a group of keys; choose one of its files"),
        (("sae=range(1,3)",), "sae=range(1,3): sae is a group of keys; choose one of its files"),
        (("site=null",), "site=null: site is a group of keys; choose one of its files"),
        (("+experiment=[1]",), "+experiment=[1]: experiment is a group of keys; choose one of its files"),
        (("hydra/launcher=[1]",), "hydra/launcher=[1]: hydra/launcher is a group of keys; choose one of its files"),
        (("training=5,6",), "training=5,6: training is a group of keys; choose one of its files"),
        (("training={lr: 1, foo: 2}",), "training.foo: no such key"),
        (("training.lr=abc",), "training.lr=abc is not a number or null"),
        (("dry_run=1",), "dry_run=1 is not true, false or members"),
        (
            ("sae=gated", "sae.k=8"),
            "sae.k: gated has no such key (it is batchtopk, hierarchical_topk, matryoshka, ortsae, temporal, topk's);"
            " its keys are architecture,",
        ),
        (("sae.architecture=topk",), "sae.architecture=topk is among the keys of gated; choose an architecture by its"),
        (("sae.architecture=topk", "+sae.k=8"), "choose an architecture by its file, sae=topk"),
        (("sae.architecture=nope",), "sae.architecture=nope is not one of "),
        (
            ("sae=gated,topk", "sae.k=8,16"),
            "sae.k: gated has no such key (it is batchtopk, hierarchical_topk, matryoshka, ortsae, temporal, topk's)",
        ),
        (("sae.l1=0.1", "sae.l0=8"), "sae.l1=0.1 and sae.l0=8 both set the sparsity"),
        (("sae=topk", "sae.k=99", "sae.width=64"), "sae.k=99 must be at least 1 and at most the width, 64 latents"),
        (("site.layer=9",), "site.layer=9 is beyond the model: 0 to 3"),
        (("training.batch_size=40000",), "training.batch_size=40000 is larger than a block of activations"),
        (("model=local",), "model.path is not given; give model.path=..."),
        (("model.path=gone/away/model",), "model.path=gone/away/model: no such folder"),
        (("data=text", "data.path=nowhere.txt"), "nowhere.txt"),
        (("model.device=cuda",), "model.device=cuda"),
        (("name=a,b",), "name=a,b: a whole sweep has one; give one value"),
        (("sae.l1=[1,",), "sae.l1=[1,: cannot be read; give key=value"),
        (("sae.l1=interval(0,1)",), "sae.l1=interval(0,1): an interval has no values to train"),
        (("+experiment=demo,gated_gemma",), "+experiment=demo,gated_gemma: a sweep has one experiment"),
        (
            ("experiment=gated_gemma", "sae=topk"),
            "sae=topk: no grid of this experiment has it; they have gated_paper, standard_paper",
        ),
        (("hydra.mode=RUN", "sae.l1=1,2"), "sae.l1=1,2: hydra.mode=RUN trains one member"),
        (("hydra.mode=RUN", "sae.l1=abc"), "sae.l1=abc is not a number or null"),
        (("hydra/launcher=nope",), "hydra/launcher=nope: no such option; there is basic, gpus, local"),
        (("hydra.sweeper.grids=3",), "hydra.sweeper.grids=3 is not a list"),
        (("--config-dir", "gone"), "gone' not found"),
        (("hydra.searchpath=[file:///gone]", "dry_run=true"), "path=/gone is not available"),
        (("--config-name", "gone"), "gone: no such config"),
        (("--cfg", "job", "training.lrr=1"), "training.lrr: no such key"),
        (("demo",), "demo: neither a command (report, status, cancel, "),
        (("reprot", "x"), "nor key=value; did you mean report?"),
        (("seed=1", "report"), "report: neither key=value nor a command, which comes first"),
        (("report",), "report: takes one folder"),
        (("report", "gone"), "report: gone has no sweep.json"),
        (("status",), "status: takes one folder"),
        (("status", "gone", "--json"), "status: gone has no sweep.json"),
        (("status", "gone", "--jsn"), "status: --jsn is no option, or stands before the folder; give `sae-sweep sta"),
        (("eval", "--tokens", "1e3", "gone"), "eval: --tokens is no option, or stands before the folder; give"),
        (("cancel",), "cancel: takes one folder"),
        (("cancel", "gone"), "cancel: gone has no sweep.json"),
        (("work",), "work: takes one folder"),
        (("export", "~nobody_here/x", "--format", "saelens", "--out", "y"), "this machine knows no such user"),
    ],
)
def test_a_refusal_is_one_line_and_writes_nothing(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], empty_folder: Path
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    said = refusal(err)
    assert said.startswith("sae-sweep: error: ")
    assert message in said
    assert said.count("\n") == 1
    assert list(empty_folder.iterdir()) == []


def test_the_process_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = list(sys.argv)
    main(["training.lrr=1"])
    assert sys.argv == before
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_arguments_to_train() -> None:
    assert prepared([]) == ["--multirun"]
    assert prepared(["experiment=demo", "-m"]) == ["--multirun", "+experiment=demo"]
    assert prepared(["+experiment=[a,b]"]) == ["--multirun", "+experiment=[a,b]"]
    assert prepared(["sae=topk", "sae.k=8", "sae.l1=1,2", "training.lr=1"]) == [
        *("--multirun", "sae=topk", "sae.k=choice(8)", "sae.l1=1,2", "training.lr=1")
    ]
    assert prepared(["--config-dir", "a=b", "seed=1"]) == ["--multirun", "--config-dir", "a=b", "seed=1"]
    assert prepared(["sae.k=8", "hydra.mode=RUN"]) == ["sae.k=8", "hydra.mode=RUN"]


def test_arguments_to_show() -> None:
    assert prepared(["-m", "--cfg", "job", "sae=gated,topk", "seed=range(3,5)"]) == [
        *("--cfg", "job", "sae=gated", "seed=3")
    ]
    assert prepared(["--help"]) == ["--help"]
    assert prepared(["-sc", "install=bash"]) == ["-sc", "install=bash"]
    with pytest.raises(ConfigError, match="no first value"):
        prepared(["--help", "seed=interval(0,1)"])


def answer(*arguments: str) -> str:
    """What a process of its own prints, which must not have imported what is slow to import."""
    code = (
        "import sys\n"
        "from sae_sweep.cli import main\n"
        "try:\n    status = main(sys.argv[1:])\n"
        "except SystemExit as error:\n    status = error.code or 0\n"
        "slow = 'torch transformers wandb datasets plotly scipy numpy ray optuna submitit'.split()\n"
        "slow = set(slow) & set(sys.modules)\n"
        "assert not slow, slow\n"
        "sys.exit(status)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def test_help_lists_groups_and_examples_without_torch() -> None:
    text = answer("--help")
    assert re.search(r"sae: batchtopk, .*gated, .*jumprelu, .*matryoshka, .*p_anneal, .*standard", text)
    assert re.search(r"experiment: architectures, .*demo, e2e, e2e_finetune, .*gated_gemma, gated_gemma_l0", text)
    assert "sae-sweep +experiment=demo" in text
    assert "batch_size: 1024" in text


def test_nothing_at_all_is_a_call_for_help(empty_folder: Path) -> None:
    text = answer()
    assert text == answer("help") == answer("--help")
    assert text.count("sae-sweep report DIR ") == 1
    assert all(f"  sae-sweep {name}" in text and command.does in text for name, command in COMMANDS.items())
    assert list(empty_folder.iterdir()) == []


def test_the_version_and_a_commands_own_help() -> None:
    assert answer("--version") == f"sae-sweep {__version__}\n"
    assert " ".join(answer("status", "--help").split()) == (
        "sae-sweep status DIR [--json] how far a sweep is, whoever trains it"
    )


def test_a_config_is_shown_without_torch_even_of_a_sweep() -> None:
    text = answer("--cfg", "job", "sae=topk,gated", "sae.k=8,16")
    assert "architecture: topk" in text
    assert "k: 8" in text
    assert "hydra" not in text


def test_a_key_and_a_group_are_explained() -> None:
    assert answer("explain", "training.lr").startswith("training.lr  ")
    assert "    null in training/default.yaml\n" in answer("explain", "training.lr")
    assert answer("explain", "sae.k").count("sae.k  ") >= 1
    assert "latents that fire on each token" in answer("explain", "sae.k")
    assert "sae=topk  TopK SAE of Gao et al. 2024.\n" in answer("explain", "sae")
    assert answer("explain", "analysis.matching.near").startswith("analysis.matching.near  ")
    assert answer("explain", "hydra.launcher.cpus").startswith("hydra.launcher.cpus  ")


def test_options_may_stand_between_overrides() -> None:
    assert prepared(["seed=1", "--cfg", "job", "sae=topk"]) == ["--cfg", "job", "seed=1", "sae=topk"]


def test_completion_without_torch() -> None:
    assert "COMP_LINE" in answer("-sc", "install=bash")


def test_a_plan_without_torch(empty_folder: Path) -> None:
    assert "13 members" in answer("+experiment=gated_gemma", "dry_run=true")
    assert "k 8" in answer("sae=topk", "sae.k=8", "sae.l0=null", "sae.width=null", "sae.auxk=null", "dry_run=true")
    assert list(empty_folder.iterdir()) == []


def test_a_closed_pipe_is_quiet() -> None:
    code = "import sys; from sae_sweep.cli import main; sys.exit(main(['dry_run=true', 'seed=range(0,30)']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
