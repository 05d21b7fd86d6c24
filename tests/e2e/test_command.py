"""One small run of each kind, by the real command: what a user types, what lies in the folder afterwards."""

import json
import re
from pathlib import Path

import pytest

SMALL = (
    "data.context=32",
    "data.block_rows=64",
    "data.rows_per_forward=32",
    "training.batch_size=256",
    "training.tokens=8e3",
    "evaluation.tokens=2e3",
    "tracking=none",
)
MEMBER_FILES = {
    "config.yaml",
    "cfg.json",
    "sae_weights.safetensors",
    "sparsity.safetensors",
    "metrics.json",
    "metrics.jsonl",
    "log.txt",
}


@pytest.mark.parametrize("folder", ["gpt2_folder", "llama_folder", "neox_folder", "gemma_folder"])
def test_any_causal_lm_folder_and_text_file_to_a_frontier(folder, request, sae_sweep, text_file, tmp_path):
    model = request.getfixturevalue(folder)
    arguments = (
        *("model=local", f"model.path={model}", "data=text", f"data.path={text_file}", "site.layer=1"),
        *("sae=gated,topk", "sae.l0=16,32", "sae.expansion=4", "name=mine"),
    )
    done = sae_sweep(*arguments, *SMALL)
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "outputs" / "mine"
    labels = {f"{architecture}-l0_{l0}-x4" for architecture in ("gated", "topk") for l0 in (16, 32)}
    assert {entry.name for entry in sweep.iterdir()} - {".state"} == labels | {
        "sweep.json",
        "pareto.json",
        "report.html",
    }
    for label in labels:
        assert {entry.name for entry in (sweep / label).iterdir()} == MEMBER_FILES
    cells = json.loads((sweep / "pareto.json").read_text())["cells"]
    assert len(cells) == 1
    assert {point["member"] for point in cells[0]["points"]} == labels
    assert str(sweep.relative_to(tmp_path) / "report.html") in done.stdout


def test_same_command_again_trains_only_what_is_missing(sae_sweep, llama_folder, text_file, tmp_path):
    base = (
        *("model=local", f"model.path={llama_folder}", "data=text", f"data.path={text_file}", "site.layer=1"),
        *("sae=topk", "sae.expansion=4", "name=again", *SMALL),
    )
    assert sae_sweep(*base, "sae.k=4,8").returncode == 0
    sweep = tmp_path / "outputs" / "again"
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in sweep.glob("topk*/*")}
    done = sae_sweep(*base, "sae.k=4,8,12")
    assert done.returncode == 0, done.stderr
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in before} == before
    points = json.loads((sweep / "pareto.json").read_text())["cells"][0]["points"]
    assert {point["member"] for point in points} == {"topk-k_4-x4", "topk-k_8-x4", "topk-k_12-x4"}


def test_company_does_not_change_what_is_saved(sae_sweep, llama_folder, text_file, tmp_path):
    base = (
        *("model=local", f"model.path={llama_folder}", "data=text", f"data.path={text_file}", "site.layer=1"),
        *("sae.expansion=4", *SMALL),
    )
    assert sae_sweep(*base, "sae=topk", "sae.k=4", "name=alone").returncode == 0
    assert sae_sweep(*base, "sae=topk", "sae.k=4,12", "name=company").returncode == 0
    weights = [tmp_path / "outputs" / name / "topk-k_4-x4" / "metrics.json" for name in ("alone", "company")]
    alone, company = (json.loads(file.read_text()) for file in weights)
    assert alone["l0"] == company["l0"]
    assert alone["ce_sae"] == pytest.approx(company["ce_sae"], abs=1e-4)


@pytest.mark.parametrize("experiment", ["gated_gemma", "gated_gemma_l0"])
def test_gated_gemma_runs_on_a_tiny_gemma(experiment, sae_sweep, gemma_folder, text_file, tmp_path):
    done = sae_sweep(
        f"+experiment={experiment}",
        *(f"model.path={gemma_folder}", "data=text", f"data.path={text_file}", "site.layer=1", "sae.width=64"),
        *SMALL,
    )
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads((tmp_path / "outputs" / experiment / "pareto.json").read_text())["cells"]
    assert len(cell["points"]) == 13
    assert {point["architecture"] for point in cell["points"]} == {"gated", "standard"}


@pytest.mark.parametrize("experiment", ["gated_gemma", "gated_gemma_l0"])
def test_gated_gemma_is_planned_offline(experiment, sae_sweep, tmp_path):
    done = sae_sweep(f"+experiment={experiment}", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "blocks.20.hook_resid_post" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_any_hook_through_transformer_lens(sae_sweep, llama_folder, text_file, tmp_path):
    done = sae_sweep(
        *("model=local", f"model.path={llama_folder}", "data=text", f"data.path={text_file}", "name=any"),
        *("model.backend=transformer_lens", "site.hook=blocks.1.ln1.hook_normalized", "site.width=32"),
        *("sae=topk", "sae.k=4", "sae.expansion=4", *SMALL),
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "outputs/any/topk-k_4-x4/metrics.json").read_text())
    assert metrics["l0"] <= 4
    assert metrics["ce_zero"] != metrics["ce_clean"]


@pytest.mark.parametrize(("width", "named"), [(None, "site.width"), (33, "site.width=33")])
def test_a_hook_of_unknown_width_is_refused(width, named, sae_sweep, llama_folder, text_file, tmp_path):
    done = sae_sweep(
        *("model=local", f"model.path={llama_folder}", "data=text", f"data.path={text_file}", *SMALL),
        *("model.backend=transformer_lens", "site.hook=blocks.1.ln1.hook_normalized", "sae=topk", "sae.k=4"),
        *([f"site.width={width}"] if width else []),
    )
    assert done.returncode == 2
    assert re.fullmatch(r"sae-sweep: error: [^\n]+\n", done.stderr), done.stderr
    assert named in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_evaluation_history_is_kept(sae_sweep, llama_folder, text_file, tmp_path):
    done = sae_sweep(
        *("model=local", f"model.path={llama_folder}", "data=text", f"data.path={text_file}", "site.layer=1"),
        *("sae=standard", "sae.l1=0.1", "sae.expansion=4", "name=history", *SMALL, "evaluation.every=3e3"),
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "outputs/history/standard-l1_0.1-x4/metrics.jsonl").read_text().splitlines()
    judged = [line for line in map(json.loads, lines) if "heldout/ce_recovered" in line]
    assert len(judged) >= 2
    assert [line["tokens"] for line in judged] == sorted({line["tokens"] for line in judged})


ERRORS = {
    "unknown key": (["training.learning_rate=1"], "training.learning_rate"),
    "wrong type": (["training.lr=fast"], "training.lr"),
    "k beyond the width": (["sae=topk", "sae.k=5000", "sae.width=100"], "sae.k=5000"),
    "knob and l0": (["sae=topk", "sae.k=5", "sae.l0=5"], "sae.l0"),
    "layer beyond the model": (["site.layer=4"], "site.layer=4"),
    "missing file": (["data=text", "data.path=nowhere.txt"], "nowhere.txt"),
    "batch beyond the block": (["training.batch_size=1e6"], "training.batch_size"),
    "no CUDA": (["model.device=cuda"], "model.device=cuda"),
    "unknown option": (["sae=gate"], "gate"),
    "unknown experiment": (["+experiment=nothing"], "nothing"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_line_and_write_nothing(case, sae_sweep, tmp_path):
    arguments, named = ERRORS[case]
    done = sae_sweep(*arguments)
    assert done.returncode == 2
    assert re.fullmatch(r"sae-sweep: error: [^\n]+\n", done.stderr), done.stderr
    assert named in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_empty_text_writes_nothing(sae_sweep, llama_folder, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    done = sae_sweep("model=local", f"model.path={llama_folder}", "data=text", f"data.path={empty}")
    assert done.returncode == 2
    assert re.fullmatch(r"sae-sweep: error: [^\n]*data\.path[^\n]*\n", done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == [empty]


def test_model_folder_without_weights_writes_nothing(sae_sweep, llama_folder, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((llama_folder / "config.json").read_bytes())
    done = sae_sweep("model=local", f"model.path={bare}", "site.layer=1")
    assert done.returncode == 2
    assert re.fullmatch(r"sae-sweep: error: [^\n]*model\.path[^\n]*\n", done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == [bare]


def test_a_folder_of_another_config_is_refused_with_the_difference(sae_sweep, llama_folder, text_file, tmp_path):
    base = (
        *("model=local", f"model.path={llama_folder}", "data=text", f"data.path={text_file}", "site.layer=1"),
        *("sae=topk", "sae.k=4", "sae.expansion=4", "name=held", *SMALL),
    )
    assert sae_sweep(*base).returncode == 0
    before = {file: file.read_bytes() for file in (tmp_path / "outputs").rglob("*") if file.is_file()}
    done = sae_sweep(*base, "training.lr=0.5")
    assert done.returncode == 2
    assert re.fullmatch(r"sae-sweep: error: [^\n]*training\.lr: null -> 0\.5[^\n]*\n", done.stderr), done.stderr
    assert {file: file.read_bytes() for file in (tmp_path / "outputs").rglob("*") if file.is_file()} == before


def test_an_unwritable_place_is_one_line(sae_sweep, tmp_path: Path):
    (tmp_path / "outputs").write_text("a file where the folder should be")
    done = sae_sweep("sae=topk", "training.tokens=2e3")
    assert done.returncode == 2
    assert re.fullmatch(r"sae-sweep: error: [^\n]*outputs[^\n]*\n", done.stderr), done.stderr
