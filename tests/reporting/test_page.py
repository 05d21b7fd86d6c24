"""What the page carries for its scripts, and what is written before any of them runs."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sae_sweep import cli
from sae_sweep.architectures.base import ARCHITECTURES
from sae_sweep.config.files import config_folder
from sae_sweep.reporting.axes import COLOURS, axes, colours, controls_of
from sae_sweep.reporting.latents import read_latents
from sae_sweep.reporting.overlay import overlaid
from sae_sweep.reporting.pareto import cells
from sae_sweep.reporting.points import SweepRecord, read_sweep
from sae_sweep.reporting.published import of_cell, read_all, shipped
from sae_sweep.reporting.report import write_overlay, write_report
from sae_sweep.reporting.sections.member import density, layers
from tests.reporting.conftest import write_sweep
from tests.reporting.synthetic import write_many
from tests.reporting.test_report import Page, quiet


def data_of(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Page(file.read_text(encoding="utf-8")).scripts["data"])
    return found


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Two layers, two architectures, two widths, two seeds, two sparsities."""
    return write_many(
        tmp_path / "many",
        layers=(2, 6),
        architectures=("gated", "topk"),
        widths=(8, 16),
        seeds=(0, 1),
        values=(0, 2),
        lines=4,
        latents=3,
    )


def test_axes_are_what_members_differ_in(many: Path) -> None:
    record = read_sweep(many)
    found = axes(record, cells(record.points))
    assert list(found["titles"]) == ["layer", "architecture", "width", "sparsity", "seed"]
    label = "topk-k_12-x8-L6-lr_0.0003-s1"
    expected = {"layer": 6, "site": "resid_post", "architecture": "topk", "width": 6144, "sparsity": "k 12", "seed": 1}
    assert expected.items() <= found["of"][label].items()
    twins = [name for name, number in found["twins"].items() if number == found["twins"][label]]
    assert twins == ["topk-k_12-x8-L6-lr_0.0003-s0", label]


def test_another_key_is_an_axis_too(many: Path) -> None:
    entries = json.loads((many / "sweep.json").read_text())
    for label, member in entries["members"].items():
        member["config"]["training"]["batch_size"] = 512 if "-x8-" in label else 1024
    (many / "sweep.json").write_text(json.dumps(entries))
    write_report(many, quiet())
    data = data_of(many / "report.html")
    assert data["axes"]["titles"]["training.batch_size"] == "training.batch_size"
    assert data["axes"]["of"]["topk-k_12-x16-L6-lr_0.0003-s1"]["training.batch_size"] == 1024
    assert 'data-key="training.batch_size"' in (many / "report.html").read_text(encoding="utf-8")


def test_colours_are_stable_and_apart() -> None:
    alone, together = colours(["topk"]), colours(["batchtopk", "gated", "standard", "topk", "topk_tokenized"])
    assert alone["topk"] == together["topk"]
    assert len(set(together.values())) == 5
    assert set(colours([f"new{i}" for i in range(COLOURS)]).values()) == set(range(COLOURS))


def test_no_script_names_an_architecture() -> None:
    folder = Path(cli.__file__).parent / "reporting"
    scripts = "\n".join(file.read_text() for file in folder.rglob("*.js"))
    assert len(scripts) > 10_000
    for name in ARCHITECTURES:
        assert not re.search(rf"[\"'`]{name}", scripts)


def test_controls_are_told_apart(sweep: Path) -> None:
    record = json.loads((sweep / "sweep.json").read_text())
    for label, member in record["members"].items():
        if label.startswith("topk"):
            member["config"]["sae"]["trained"] = "none"
    (sweep / "sweep.json").write_text(json.dumps(record))
    write_report(sweep, quiet())
    found = data_of(sweep / "report.html")["axes"]
    assert found["controls"] == ["random"]
    assert "random" not in found["colours"]


def test_the_header_says_how_it_came_to_be(many: Path) -> None:
    write_report(many, quiet())
    text = " ".join(" ".join(Page((many / "report.html").read_text(encoding="utf-8")).shown).split())
    for expected in (
        "Finished 2026-11-30 02:05 UTC Model gpt2 (float32) Data corpus Training tokens 200M",
        "Device cuda:0 of node7 Wall time 2h05m Commit 0123456789ab+",
        "python 3.11.7, sae-sweep 0.1.0, torch 2.13.0",
        "sae-sweep name=made sae=gated,topk 'sae.l0=8,32' model=gpt2",
    ):
        assert expected in text


def test_a_worthless_site_is_seen_in_kl_first(sweep: Path) -> None:
    for file in sweep.glob("*/metrics.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"ce_zero": 3.4}))
    write_report(sweep, quiet())
    text = (sweep / "report.html").read_text(encoding="utf-8")
    data = data_of(sweep / "report.html")
    assert data["choices"][0][0] == "kl"
    assert data["choices"][0].count("kl") == 1
    assert text.index("<div class=warnings") < text.index("CE recovered means nothing here") < text.index("<dl class")
    assert text.index('<option value="kl">') < text.index('<option value="ce_recovered">')


def test_any_result_of_an_analysis_has_a_section(many: Path) -> None:
    write_report(many, quiet())
    text = (many / "report.html").read_text(encoding="utf-8")
    likeness, purity, seeds = data_of(many / "report.html")["sections"]["analyses"]
    assert (likeness["kind"], len(likeness["series"])) == ("map", 6)
    assert purity["title"] == "Purity <b>by</b> L0"
    assert "<h2>Analysis: purity</h2><p class=quiet>n=8 · analyses/purity.json has all of it" in text
    row = "<th scope=row>mean purity</th><td class=number>0.75 ±0.012</td><td class=number>0.2</td><td class=number>240"
    assert row in text
    assert "<td class=number>0.5 ±0.01 <span class=control>vs 0.2</span></td>" in text
    assert len(seeds["series"]) == 4
    assert text.count("<section class=analysis>") == 3
    one, other = list(json.loads((many / "analyses" / "seeds.json").read_text())["members"])[:2]
    assert f"<th scope=row>{one}</th><td>like {other}</td><td class=number>0.5 ±0.01</td>" in text, "no column each"
    assert "<b>by</b>" not in text.replace("\\u003c", "<").partition('id="data"')[0], "only ever text"


def test_a_cross_layer_transcoders_page_has_its_layers(many: Path, tmp_path: Path) -> None:
    layer = {"reads": "blocks.0.hook_resid_mid", "writes": "blocks.0.hook_mlp_out", "fvu": 0.1, "l0": 8.0, "alive": 0.5}
    label = "topk-k_12-x8-L6-lr_0.0003-s1"
    file = many / label / "layers.json"
    file.write_text(json.dumps({"layers": [layer, {**layer, "fvu": "<b>"}, {"reads": 1}, 3]}))
    assert layers(file) == [layer]
    write_report(many, quiet())
    members = data_of(many / "report.html")["sections"]["member"]["members"]
    assert members[label]["layers"] == [layer]
    assert all(own["layers"] == [] for name, own in members.items() if name != label)
    file.unlink()
    for broken in ("{", "[]", '{"layers": 3}', '{"layers": [NaN]}'):
        (tmp_path / "layers.json").write_text(broken)
        assert layers(tmp_path / "layers.json") == []


def test_a_members_page_has_what_sets_it_apart(many: Path) -> None:
    write_report(many, quiet())
    found = data_of(many / "report.html")["sections"]["member"]
    label = "topk-k_12-x8-L6-lr_0.0003-s1"
    assert found["common"]["data.path"] == "corpus"
    own = found["members"][label]["config"]
    assert (own["sae.expansion"], own["seed"], own["site.layer"]) == ("8", "1", "6")
    assert not found["common"].keys() & own.keys()
    counts = found["members"][label]["density"]
    assert sum(counts) == 512
    assert density(many / label / "none") is None
    assert len(found["latents"][label]["latents"]) == 3


def test_latents_are_made_small(many: Path) -> None:
    folder = many / "topk-k_12-x8-L6-lr_0.0003-s1"
    file = folder / "analyses" / "latents.json"
    found = json.loads(file.read_text())
    context = {"tokens": [" a", "b", "c"], "activations": [0.0, 4.5, 0.01], "position": 1}
    found["details"] = [found["details"][0] | {"top": [context | {"activations": [0.0, 9.0, 0.01]}]}]
    found["details"][0] |= {"quantiles": [[context], []], "random": [context]}
    file.write_text(json.dumps(found))
    read = read_latents(folder, 10**6)
    assert read is not None
    [one] = read["latents"]
    assert [part["name"] for part in one["quantiles"]] == [
        "Largest",
        "Activations from 50 to 100 % of all above 0, by rank",
        "Activations from 0 to 50 % of all above 0, by rank",
        "Anywhere it fires",
    ]
    small = {"tokens": [" a", "b", "c"], "strengths": "041", "at": 1, "activation": 4.5}
    assert one["quantiles"][2]["contexts"] == [small], "4 of 9: half the largest; 1: hardly above 0"
    assert one["quantiles"][1]["contexts"] == []
    assert (one["id"], len(one["neighbours"])) == (found["details"][0]["latent"], 8)
    file.write_text('{"details": [{"latent": 1}]}')
    assert read_latents(folder, 10**6) is None


def test_latents_take_what_room_there_is(many: Path) -> None:
    folder = many / "topk-k_12-x8-L6-lr_0.0003-s1"
    whole = read_latents(folder, 10**6)
    assert whole is not None
    sizes = [len(json.dumps(latent, ensure_ascii=False).encode()) for latent in whole["latents"]]
    some = read_latents(folder, sizes[0] + sizes[1])
    assert some is not None
    assert some["latents"] == whole["latents"][:2]
    assert some["told"].startswith("2 of 3 latents, drawn at random")


def test_sweeps_are_laid_over_each_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = write_sweep(tmp_path / name, lines=3)
        entries = json.loads((folder / "sweep.json").read_text())
        (folder / "sweep.json").write_text(json.dumps(entries | {"name": name}))
    out = tmp_path / "both.html"
    assert cli.main(["report", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(out)]) == 0
    data = data_of(out)
    [cell] = data["cells"]
    assert len(cell["points"]) == 32
    assert data["axes"]["titles"]["sweep"] == "Sweep"
    assert {values["sweep"] for values in data["axes"]["of"].values()} == {"one", "two"}
    assert data["sections"]["member"]["members"]["two/topk-k_24-x16"]["folder"] == str(tmp_path / "two/topk-k_24-x16")
    assert len(data["sections"]["curves"][-1]["tokens"]) == 3
    assert not (tmp_path / "one" / "report.html").exists()


def test_sweeps_of_one_name_are_called_by_their_folders(tmp_path: Path) -> None:
    folders = [write_sweep(tmp_path / name, lines=3) for name in ("one", "two")]
    write_overlay(folders, [], tmp_path / "both.html", Console(file=io.StringIO()))
    values = data_of(tmp_path / "both.html")["axes"]["of"].values()
    assert {value["sweep"] for value in values} == {str(folder) for folder in folders}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{sweep}", "{sweep}"], "report: several sweeps make a page of their own; give --out FILE.html"),
        (["{sweep}", "--out", "gone/x.html"], "report: --out=gone/x.html: no such folder here"),
        (["{sweep}", "--published", "x.csv"], "report: give --out once"),
        (["{sweep}", "--out", "x.html", "--published", "none.csv"], "none.csv: cannot be read"),
        (["--out", "x.html"], "report: takes one folder"),
        (["{sweep}", "--latents", "few"], "report: --latents=few is not a whole number above 0"),
    ],
)
def test_what_is_no_overlay_is_refused(
    arguments: list[str], said: str, sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sweep)
    assert cli.main(["report", *(word.format(sweep=sweep) for word in arguments)]) == 2
    assert said in capsys.readouterr().err
    assert not (sweep / "x.html").exists()


def test_published_numbers_agree_with_themselves() -> None:
    """CE recovered is what the paper's own CEs say, as far as their four digits go."""
    rows = read_all(shipped(config_folder()))
    assert len(rows) == 197
    for row in rows:
        assert "arXiv 2404.16014" in row["citation"]
        if row["ce_sae"] is not None and row["ce_zero"] is not None:
            gap = row["ce_zero"] - row["ce_clean"]
            recovered = (row["ce_zero"] - row["ce_sae"]) / gap
            assert recovered == pytest.approx(row["ce_recovered"], abs=2e-4 + 3e-4 / gap), row


def test_published_members_are_seen_where_model_and_site_are_theirs(sweep: Path, tmp_path: Path) -> None:
    file = tmp_path / "paper.csv"
    columns = "model,hook,architecture,width,knob,knob_value,l0,ce_recovered"
    rows = ["openai-community/gpt2,blocks.6.hook_resid_post,topk,24576,k,32,32,0.97", "gpt2,elsewhere,topk,8,k,8,8,.5"]
    file.write_text("\n".join(["# A paper, arXiv 1.", columns, *rows]))
    write_overlay([sweep], [file], tmp_path / "page.html", Console(file=io.StringIO()))
    [[row]] = data_of(tmp_path / "page.html")["sections"]["frontier"]
    assert (row["l0"], row["ce_recovered"], row["kl"], row["citation"]) == (32, 0.97, None, "A paper, arXiv 1.")
    assert of_cell([row], {"key": {"model": "gpt2", "site": {"in": "x", "out": "x"}}}) == []


def test_a_papers_recipe_shares_no_curve_with_another_sweeps(sweep: Path, tmp_path: Path) -> None:
    tuned = write_sweep(tmp_path / "tuned")
    for folder, recipe in ((sweep, "paper"), (tuned, "tuned")):
        entries = json.loads((folder / "sweep.json").read_text())
        for member in entries["members"].values():
            member["config"]["sae"]["recipe"] = recipe
        (folder / "sweep.json").write_text(json.dumps(entries | {"name": recipe}))
    points = overlaid([sweep, tuned]).points
    found = {(point["member"].partition("/")[0], point["architecture"]) for point in points}
    own = {point["architecture"] for point in read_sweep(sweep).points}
    assert found == {("paper", f"{name} paper") for name in own} | {("tuned", name) for name in own}


def test_a_control_of_a_papers_recipe_is_a_control() -> None:
    names = {"a": "topk random paper", "b": "topk random", "c": "topk"}
    points = [{"member": label, "architecture": name} for label, name in names.items()]
    trained = {"a": {"trained": "none"}, "b": {"trained": "none"}, "c": {"trained": "all"}}
    record = SweepRecord("x", points, [], [], {label: {"sae": sae} for label, sae in trained.items()})
    assert controls_of(record) == {"topk random paper", "topk random"}


def test_published_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    """As numpy writes them, in a file that a spreadsheet has put its mark before."""
    file = tmp_path / "paper.csv"
    rows = ["model,hook,architecture,knob,l0,ce_recovered,kl", "gpt2,h,topk,k,32,nan,inf"]
    file.write_text("\n".join(rows), encoding="utf-8-sig")
    [row] = read_all([file])
    assert (row["model"], row["l0"], row["ce_recovered"], row["kl"]) == ("gpt2", 32, None, None)


def test_the_tables_cells_and_heads_are_as_many(many: Path) -> None:
    write_report(many, quiet())
    text = (many / "report.html").read_text(encoding="utf-8")
    start = text.index("<table class=members>", text.index("<section class=table>"))
    table = text[start : text.index("</table>", start)]
    heads = table.count("<th scope=col")
    rows = table.split("<tr ")[1:]
    assert len(rows) == 32
    assert {row.count("<td") + row.count("<th") for row in rows} == {heads}
