import json
from functools import cache
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from safetensors.numpy import save_file

from sae_sweep.config.files import config_of
from sae_sweep.config.reading import member_config
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.folder.files import host_token, write_json_atomic
from sae_sweep.folder.names import METRICS, WEIGHTS
from sae_sweep.folder.sweep import SweepFolder, sweep_root
from sae_sweep.plan.groups import Plan, plan_sweep
from sae_sweep.reporting.points import read_sweep
from tests.folder.test_files import dead_pid


@cache
def config(*overrides: str) -> MemberConfig:
    return config_of(overrides)


def begun(folder: SweepFolder, *configs: MemberConfig) -> Plan:
    plan = folder.named(plan_sweep(configs))
    folder.begin(plan)
    return plan


def finish(folder: SweepFolder, label: str) -> None:
    write_json_atomic(folder.member_folder(label) / METRICS, {"l0": 3.0})
    save_file({"W_dec": np.zeros((1, 1), dtype=np.float32)}, folder.member_folder(label) / WEIGHTS)
    folder.mark([label], "finished", None)


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "outputs" / "sweep")


def test_the_folder_is_output_dir_and_name() -> None:
    assert str(sweep_root(config("output_dir=there", "name=this"))) == "there/this"


def test_nothing_is_written_before_begin(folder: SweepFolder) -> None:
    plan = folder.named(plan_sweep([config()]))
    assert folder.finished(plan) == set()
    assert folder.read()["members"] == {}
    assert not folder.root.exists()


def test_begin_writes_the_plan_and_each_members_config(folder: SweepFolder) -> None:
    plan = begun(folder, config("sae.l1=0.1"), config("sae=topk"))
    sweep = json.loads((folder.root / "sweep.json").read_text())
    assert sweep["version"] == 1
    assert sweep["name"] == "sweep"
    assert list(sweep["members"]) == ["gated-l1_0.1-x16", "topk-l0_32-x16"]
    entry = sweep["members"]["gated-l1_0.1-x16"]
    assert (entry["identity"], entry["state"], entry["reason"]) == (plan.members[0].identity, "planned", None)
    assert entry["config"]["sae"]["l1"] == 0.1
    assert "tracking" not in entry["config"]
    assert "device" not in entry["config"]["model"]
    assert sweep["plan"][0]["hooks"] == ["blocks.2.hook_resid_post"]
    assert [bank["members"] for bank in sweep["plan"][0]["banks"]] == [["gated-l1_0.1-x16"], ["topk-l0_32-x16"]]
    saved = OmegaConf.load(folder.root / "topk-l0_32-x16" / "config.yaml")
    member = plan.members[1]
    assert member_config(saved) == member.resolved
    assert (saved.sae.width, saved.training.lr, saved.site.layer) == (member.width, member.schedule.lr, 2)
    assert [key for key, value in saved.training.items() if value is None] == [
        *("downstream_sites", "checkpoint_tokens", "milestones")
    ]
    assert plan_sweep([member.resolved]).members[0].schedule == member.schedule


def test_a_member_is_finished_when_marked_and_its_files_are_there(folder: SweepFolder) -> None:
    plan = begun(folder, config("sae=topk"), config())
    label = plan.members[0].label
    folder.mark([label], "finished", None)
    assert folder.finished(plan) == set()
    finish(folder, label)
    assert folder.finished(plan) == {plan.members[0].identity}
    assert folder.read_metrics(label) == {"l0": 3.0}
    folder.mark([label], "failed", "diverged")
    assert folder.finished(plan) == set()


def test_a_folder_that_is_removed_and_made_anew_while_members_are_trained(folder: SweepFolder) -> None:
    label = begun(folder, config()).members[0].label
    rmtree(folder.root)
    begun(folder, config("sae=topk"))
    with pytest.raises(
        ConfigError, match=rf"was removed while its members were trained \({label}\); give the same command again"
    ):
        folder.mark([label], "finished", None)
    assert list(folder.read()["members"]) == ["topk-l0_32-x16"]


def test_begin_again_keeps_finished_members_and_plans_the_others_anew(folder: SweepFolder) -> None:
    plan = begun(folder, config("sae=topk"), config())
    finish(folder, plan.members[0].label)
    folder.mark([plan.members[1].label], "failed", "diverged")
    begun(folder, config("sae=topk"), config(), config("sae=standard"))
    states = {label: entry["state"] for label, entry in folder.read()["members"].items()}
    assert states == {"topk-l0_32-x16": "finished", "gated-l0_32-x16": "planned", "standard-l0_32-x16": "planned"}


def test_a_member_with_damaged_metrics_is_trained_again(folder: SweepFolder) -> None:
    label = begun(folder, config()).members[0].label
    finish(folder, label)
    metrics = folder.member_folder(label) / "metrics.json"
    metrics.write_text(metrics.read_text()[:-4])
    assert folder.finished(folder.named(plan_sweep([config()]))) == set()


@pytest.mark.parametrize("damage", ["empty", "cut", "no header", "longer"])
def test_a_member_with_damaged_weights_is_trained_again(damage: str, folder: SweepFolder) -> None:
    label = begun(folder, config()).members[0].label
    finish(folder, label)
    plan = folder.named(plan_sweep([config()]))
    assert folder.finished(plan) != set()
    weights = folder.member_folder(label) / WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes({"empty": b"", "cut": whole[:-1], "no header": b"x" * 99, "longer": whole + b"x"}[damage])
    assert folder.finished(plan) == set()


def test_begin_removes_what_an_unfinished_attempt_left(folder: SweepFolder) -> None:
    label = begun(folder, config()).members[0].label
    for name in ("metrics.jsonl", "cfg.json", "sae_weights.safetensors"):
        (folder.member_folder(label) / name).write_text("half a run")
    begun(folder, config())
    assert [file.name for file in folder.member_folder(label).iterdir()] == ["config.yaml"]


def test_begin_removes_what_killed_processes_were_writing(folder: SweepFolder) -> None:
    (member,) = begun(folder, config("sae=topk")).members
    killed = f".a.{host_token()}-{dead_pid()}-0123abcd.tmp"
    elsewhere = ".a.ffffff-1-0123abcd.tmp"
    milestone = folder.milestone_folder(member.label, 700)
    milestone.mkdir(parents=True)
    for place in (folder.root, folder.member_folder(member.label), milestone):
        (place / killed).write_text("half")
        (place / elsewhere).write_text("half")
    folder.begin(folder.named(plan_sweep([config("sae=topk")])), [member.identity])
    assert [str(path.relative_to(folder.root)) for path in folder.root.rglob("*.tmp")] == [elsewhere]


def test_members_keep_their_names_when_an_axis_grows(folder: SweepFolder) -> None:
    begun(folder, config("seed=0"))
    plan = begun(folder, config("seed=0"), config("seed=1"))
    old, new = plan.members
    assert old.label == "gated-l0_32-x16"
    assert new.label == "gated-l0_32-x16-s1"
    again = begun(folder, config("seed=1"), config("seed=0"))
    assert [member.label for member in again.members] == [new.label, old.label]


def test_another_config_under_a_name_is_refused_with_the_difference(folder: SweepFolder) -> None:
    begun(folder, config("seed=0"))
    before = (folder.root / "sweep.json").read_text()
    with pytest.raises(ConfigError) as caught:
        folder.named(plan_sweep([config("training.tokens=3e6", "seed=2")]))
    message = str(caught.value)
    assert "seed: 0 -> 2" in message
    assert "training.tokens: 2e+06 -> 3e+06" in message
    assert "another name=" in message
    assert "\n" not in message
    assert (folder.root / "sweep.json").read_text() == before


def test_several_members_of_another_config_are_refused_too(folder: SweepFolder) -> None:
    begun(folder, config("seed=0"))
    with pytest.raises(ConfigError, match="seed: 0 -> 1"):
        folder.named(plan_sweep([config("seed=1"), config("seed=2")]))


def test_a_long_difference_is_cut(folder: SweepFolder) -> None:
    begun(folder, config())
    keys = ("seed=1", "data.seed=1", "data.context=64", "training.lr=1", "training.eps=1", "training.clip=1")
    with pytest.raises(ConfigError, match="and 2 more"):
        folder.named(plan_sweep([config(*keys)]))


MEMBER: dict[str, Any] = {
    "identity": "0" * 16,
    "state": "finished",
    "reason": None,
    "config": {
        **{name: {} for name in ("model", "site", "data", "evaluation")},
        "sae": {"architecture": "topk"},
        "training": {"batch_size": 16, "tokens": 160.0},
    },
}


def damaged(group: str, **values: object) -> str:
    """A sweep file with values of a member's config changed."""
    return members({"one": MEMBER | {"config": {**MEMBER["config"], group: MEMBER["config"][group] | values}}})


def members(entries: object) -> str:
    return json.dumps({"version": 1, "members": entries})


MALFORMED = {
    "no JSON": "{",
    "no object": "[]",
    "other version": '{"version": 99, "members": {}}',
    "no text": "\udcff",
    "no members": '{"version": 1}',
    "a list of members": members([]),
    "a member that is no object": members({"one": 1}),
    "a member without an identity": members({"one": {k: value for k, value in MEMBER.items() if k != "identity"}}),
    "a member without a config": members({"one": MEMBER | {"config": {}}}),
    "a member that leads out of the folder": members({"../../one": MEMBER}),
    "a member of an absolute path": members({"/tmp/one": MEMBER}),
    "a hidden member": members({".state": MEMBER}),
    "deep": "[" * 100_000,
    "a state that there is not": members({"one": MEMBER | {"state": "asleep"}}),
    "a reason that is no text": members({"one": MEMBER | {"reason": [1]}}),
    "steps of no tokens": damaged("training", batch_size=0),
    "a width that is text": damaged("sae", width="16"),
    "an infinite number": damaged("training", tokens=1e400),
}


def test_a_sweep_file_that_is_as_it_should_be(folder: SweepFolder) -> None:
    folder.root.mkdir(parents=True)
    (folder.root / "sweep.json").write_text(members({"topk-k_8-x4-ab12": MEMBER}))
    assert list(folder.read()["members"]) == ["topk-k_8-x4-ab12"]


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_a_sweep_file_that_cannot_be_read_is_refused(folder: SweepFolder, text: str) -> None:
    folder.root.mkdir(parents=True)
    (folder.root / "sweep.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match=r"sweep\.json"):
        folder.read()
    with pytest.raises(ConfigError, match=r"sweep\.json"):
        read_sweep(folder.root)


def test_an_output_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = SweepFolder(tmp_path / "file" / "sweep")
    with pytest.raises(ConfigError, match="output_dir"):
        folder.begin(plan_sweep([config()]))
