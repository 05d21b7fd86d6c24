"""A finished sweep from Python."""

import json
import shutil

import pytest
import torch

import sae_sweep as ss
from sae_sweep.analyses.session.judging import judge
from sae_sweep.interop import dictionary_learning

LABELS = {"gated-l0_8-w256", "gated-l0_16-w256", "topk-l0_8-w256", "topk-l0_16-w256"}


def test_the_frame_has_a_row_per_member_with_config_and_metrics(sweep):
    frame = sweep.frame()
    assert set(frame.index) == LABELS == set(sweep)
    assert len(sweep) == 4
    row = frame.loc["topk-l0_8-w256"]
    metrics = json.loads((sweep.folder / "topk-l0_8-w256" / "metrics.json").read_text())
    assert row["ce_recovered"] == metrics["ce_recovered"]
    assert (row["state"], row["architecture"], row["width"]) == ("finished", "topk", 256)
    assert (row["sae.l0"], row["training.batch_size"], row["site.layer"]) == (8, 512, 2)
    assert row["training.beta1"] is not None  # as its recipe has it
    said = sweep["topk-l0_8-w256"].provenance
    assert row["training.beta1"] == said["config"]["training"]["beta1"]
    assert said["command"].startswith("sae-sweep sae=topk,gated ")
    assert said["command"].endswith(f" name=mine output_dir={sweep.folder.parent}")


def test_a_sweep_that_trains_shows_who_is_unfinished(sweep, tmp_path):
    shutil.copytree(sweep.folder, tmp_path / "mine")
    record = json.loads((tmp_path / "mine" / "sweep.json").read_text())
    record["members"]["gated-l0_8-w256"]["state"] = "running"
    (tmp_path / "mine" / "sweep.json").write_text(json.dumps(record))
    trains = ss.open(tmp_path / "mine")
    row = trains.frame().loc["gated-l0_8-w256"]
    assert (row["state"], row["architecture"]) == ("running", "gated")
    assert 0 < row["tokens_trained"] <= 20_480
    assert trains.frame()["ce_recovered"].notna().sum() == len(trains) == 3
    assert "3 of 4 members finished" in repr(trains)
    with pytest.raises(KeyError, match="not one of the finished members"):
        trains["gated-l0_8-w256"]


def test_the_frontier_is_that_of_pareto_json(sweep):
    (cell,) = json.loads((sweep.folder / "pareto.json").read_text())["cells"]
    assert list(sweep.frontier().index) == cell["frontiers"]["overall"]


def test_the_best_member_is_the_one_that_keeps_most(sweep):
    frame = sweep.frame()
    assert sweep.best().home.folder.name == frame["ce_recovered"].idxmax()
    assert sweep.best(l0=8, architecture="topk").home.folder.name == "topk-l0_8-w256"
    assert sweep.best(**{"sae.l0": 16, "architecture": "gated"}).home.folder.name == "gated-l0_16-w256"
    with pytest.raises(ss.ConfigError, match="architecture=relu; there are gated, topk"):
        sweep.best(architecture="relu")
    with pytest.raises(ss.ConfigError, match="no finished member has an L0 near 100; there are 8"):
        sweep.best(l0=100, architecture="topk")
    with pytest.raises(ss.ConfigError, match="lr_: the frame has no such column"):
        sweep.best(lr_=1)


def test_the_plot_has_a_trace_for_each_hue(sweep):
    figure = sweep.plot("l0", "ce_recovered", hue="architecture")
    assert [trace.name for trace in figure.data] == ["gated", "topk"]
    assert set(figure.data[1].text) == {"topk-l0_8-w256", "topk-l0_16-w256"}
    assert sorted(figure.data[1].y) == sorted(sweep.frame().query("architecture == 'topk'")["ce_recovered"])
    assert figure.layout.yaxis.title.text.startswith("CE recovered")


@pytest.mark.parametrize("label", sorted(LABELS))
def test_a_member_is_a_module_with_the_fields_names(sweep, label):
    sae = sweep[label]
    assert isinstance(sae, torch.nn.Module)
    assert (sae.W_enc.shape, sae.W_dec.shape) == ((128, 256), (256, 128))
    assert (sae.b_enc.shape, sae.b_dec.shape) == ((256,), (128,))
    assert (sae.cfg.d_in, sae.cfg.d_sae, sae.cfg.hook_layer) == (128, 256, 2)
    assert (sae.cfg.hook_name, sae.cfg.dtype, sae.cfg.device) == ("blocks.2.hook_resid_post", "float32", "cpu")
    x = torch.randn(2, 3, 128)
    assert sae.encode(x).shape == (2, 3, 256)
    assert torch.equal(sae(x), sae.decode(sae.encode(x)))
    doubled = sae.to(dtype=torch.float64)
    assert (doubled.cfg.dtype, doubled(x).dtype) == ("float64", torch.float64)


def test_a_folder_is_loaded_as_by_the_sweep(sweep, monkeypatch):
    import huggingface_hub

    asked = {}

    def download(repo, revision=None, allow_patterns=None):
        asked.update(repo=repo, revision=revision, allow_patterns=allow_patterns)
        return str(sweep.folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    hub = ss.load("hub:someone/saes/topk-l0_8-w256@main")
    assert asked == {
        "repo": "someone/saes",
        "revision": "main",
        "allow_patterns": ["topk-l0_8-w256", "topk-l0_8-w256/*"],
    }
    assert torch.equal(hub.W_dec, ss.load(sweep.folder / "topk-l0_8-w256").W_dec)


def test_what_cannot_be_opened_or_loaded_is_told_in_a_line(sweep, tmp_path):
    with pytest.raises(ss.ConfigError, match="has no sweep"):
        ss.open(tmp_path)
    with pytest.raises(ss.ConfigError, match="does not exist"):
        ss.load(tmp_path / "nothing")
    with pytest.raises(ss.ConfigError, match="holds no SAE in a known format"):
        ss.load(tmp_path)
    with pytest.raises(ss.ConfigError, match="is not hub:USER/REPO"):
        ss.load("hub:someone")
    shutil.copytree(sweep.folder / "topk-l0_8-w256", tmp_path / "member")
    (tmp_path / "member" / "sae_weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(ss.ConfigError, match="sae_weights"):
        ss.load(tmp_path / "member")


def test_an_analysis_is_asked(sweep):
    found = ss.analyse(sweep, "matching", pairs="site")
    assert set(found.members) == LABELS
    with pytest.raises(ss.ConfigError, match="no such analysis"):
        ss.analyse(sweep, "nothing")
    with pytest.raises(ss.ConfigError, match="no such key"):
        ss.analyse(sweep, "matching", none=1)


def test_an_sae_trained_elsewhere_is_told_where_it_belongs(sweep, tmp_path):
    ours = sweep["topk-l0_8-w256"]
    dictionary_learning.write(tmp_path, ours.inference, {}, ours.density(), torch.float32)
    with pytest.raises(ss.ConfigError, match="give hook= to load"):
        assert ss.load(tmp_path).reads
    with pytest.raises(ss.ConfigError, match="give model= to load"):
        ss.load(tmp_path).model()
    theirs = ss.load(tmp_path, hook=ours.reads, model="demo")
    copied = ss.open(shutil.copytree(sweep.folder, tmp_path / "mine"))
    judge(copied.folder, [f"--sae={tmp_path}"])
    name = f"foreign/{tmp_path.name}"
    assert set(copied) == {*LABELS, name}
    frame = copied.frame()
    assert (frame.loc[name, "state"], frame.loc[name, "architecture"]) == ("foreign", "topk foreign")
    assert frame.loc[name, "l0"] == 8.0
    assert torch.allclose(copied[name].W_dec, ours.W_dec)
    found = ss.evaluate(
        [ours, theirs],
        data=["data=demo", "data.context=32", "evaluation.tokens=500"],
    )
    assert found["l0"].tolist() == [8.0, 8.0]
    assert found["mse"].iloc[1] == pytest.approx(found["mse"].iloc[0], rel=1e-5)


def test_members_of_several_cells_are_not_compared(sweep, tmp_path):
    shutil.copytree(sweep.folder, tmp_path / "mine")
    record = json.loads((tmp_path / "mine" / "sweep.json").read_text())
    record["members"]["gated-l0_8-w256"]["config"]["site"]["layer"] = 1
    (tmp_path / "mine" / "sweep.json").write_text(json.dumps(record))
    two = ss.open(tmp_path / "mine")
    with pytest.raises(ss.ConfigError, match="do not compare"):
        two.best()
    assert two.best(**{"site.layer": 1}).home.folder.name == "gated-l0_8-w256"
