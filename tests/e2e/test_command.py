"""One small run of each kind, by the real command: what a user types, what lies in the folder afterwards."""

import json
import re
from pathlib import Path

import pytest

from tests.e2e.told import refusal

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
    "provenance.json",
    "cfg.json",
    "sae_weights.safetensors",
    "sparsity.safetensors",
    "metrics.json",
    "metrics.jsonl",
    "times.jsonl",
    "rows.safetensors",
    "first_block.safetensors",
    "log.txt",
}


def test_any_causal_lm_folder_and_text_file_to_a_frontier(gpt2_folder, sae_sweep, text_file, tmp_path):
    arguments = (
        *("model=local", f"model.path={gpt2_folder}", "data=text", f"data.path={text_file}", "site.layer=1"),
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
        "pace.jsonl",
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


def test_gated_gemma_runs_on_a_tiny_gemma(sae_sweep, gemma_folder, text_file, tmp_path):
    done = sae_sweep(
        "+experiment=gated_gemma",
        *(f"model.path={gemma_folder}", "data=text", f"data.path={text_file}", "site.layer=1", "sae.width=64"),
        *SMALL,
    )
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads((tmp_path / "outputs" / "gated_gemma" / "pareto.json").read_text())["cells"]
    assert len(cell["points"]) == 13
    assert {point["architecture"] for point in cell["points"]} == {"gated", "standard"}


def test_gated_gemma_is_planned_offline(sae_sweep, tmp_path):
    done = sae_sweep("+experiment=gated_gemma_l0", "dry_run=true")
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


@pytest.mark.parametrize(("width", "named"), [(None, "site.width"), (33, "give site.width=32")])
def test_a_hook_of_unknown_width_is_refused(width, named, sae_sweep, llama_folder, text_file, tmp_path):
    done = sae_sweep(
        *("model=local", f"model.path={llama_folder}", "data=text", f"data.path={text_file}", *SMALL),
        *("model.backend=transformer_lens", "site.hook=blocks.1.ln1.hook_normalized", "sae=topk", "sae.k=4"),
        *([f"site.width={width}"] if width else []),
    )
    assert done.returncode == 2
    assert re.fullmatch(r"sae-sweep: error: [^\n]+\n", refusal(done.stderr)), done.stderr
    assert named in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_empty_text_writes_nothing(sae_sweep, llama_folder, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    done = sae_sweep("model=local", f"model.path={llama_folder}", "data=text", f"data.path={empty}", "data.context=16")
    assert done.returncode == 2
    assert re.fullmatch(r"sae-sweep: error: [^\n]*data\.path[^\n]*\n", refusal(done.stderr)), done.stderr
    assert list(tmp_path.iterdir()) == [empty]


def test_model_folder_without_weights_writes_nothing(sae_sweep, llama_folder, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((llama_folder / "config.json").read_bytes())
    done = sae_sweep("model=local", f"model.path={bare}", "site.layer=1")
    assert done.returncode == 2
    assert re.fullmatch(r"sae-sweep: error: [^\n]*model\.path[^\n]*\n", refusal(done.stderr)), done.stderr
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
    assert re.fullmatch(r"sae-sweep: error: [^\n]*training\.lr: null -> 0\.5[^\n]*\n", refusal(done.stderr)), (
        done.stderr
    )
    assert {file: file.read_bytes() for file in (tmp_path / "outputs").rglob("*") if file.is_file()} == before


def test_an_unwritable_place_is_one_line(sae_sweep, tmp_path: Path):
    (tmp_path / "outputs").write_text("a file where the folder should be")
    done = sae_sweep("sae=topk", "training.tokens=2e3")
    assert done.returncode == 2
    assert re.fullmatch(r"sae-sweep: error: [^\n]*outputs[^\n]*\n", refusal(done.stderr)), done.stderr
