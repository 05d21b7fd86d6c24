"""Every config key does something: each row of the table in `every_key.py` is shown to be true by running it."""

import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, fields, replace
from functools import cache
from math import inf
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import datasets
import huggingface_hub.constants
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor

from sae_sweep.architectures.base import ARCHITECTURES
from sae_sweep.config.files import config_folder
from sae_sweep.config.reading import config_entries, flat_entries, known_keys, member_config
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.folder.names import WEIGHTS
from sae_sweep.launch.local import Outcome, run_sweep
from sae_sweep.model.facts import FACTS
from sae_sweep.plan.groups import plan_sweep, stream_key
from sae_sweep.plan.members import identity_entries, member_identity
from sae_sweep.plan.memory import peak
from sae_sweep.plan.placement import plan_passes
from sae_sweep.training.run.checkpointing import Keeper
from sae_sweep.training.run.sources import LanguageModelSource
from sae_sweep.training.step.precision import HALVES
from tests.config.every_key import OF_THE_STREAM, OPTIONS, RUNTIME, TABLE, Row
from tests.config.every_key_places import ON_DISK, Places, make_hub_cache, make_places
from tests.model import quantising
from tests.model.adapters import stand_in

LEARNED = 3e-3
"""Of the largest weight: more than another order of summation becomes within 24 steps, even with p_anneal."""
ROUNDING = 1e-5
"""The same, of what that becomes with standard."""
REFUSED_BY = {"model.backend": "site.hook", "model.trust_remote_code": "model.path"}
"""What the refusal names, where that is not the key."""


@dataclass(frozen=True)
class Run:
    """A finished run: its final weights, and what was written about them."""

    outcome: Outcome

    @property
    def weights(self) -> dict[str, Tensor]:
        return load_file(self.outcome.folder / WEIGHTS)

    @property
    def metrics(self) -> dict[str, Any]:
        assert self.outcome.metrics is not None, self.outcome.reason
        return self.outcome.metrics

    @property
    def curve(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.outcome.folder / "metrics.jsonl").read_text().splitlines()]


def rows(*effects: str) -> list[Any]:
    """The rows of these effects, as parameters of a test."""
    return [
        pytest.param(row, id=f"{row.key}-{row.option}-{n}")
        for n, row in enumerate(TABLE)
        if not effects or row.effect in effects
    ]


@cache
def _composed(choices: tuple[str, ...]) -> dict[str, Any]:
    """Flat."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return flat_entries(OmegaConf.to_container(compose("config", list(choices))))  # type: ignore[arg-type]


@cache
def _parsed(text: str) -> tuple[str, Any]:
    override = OverridesParser.create().parse_override(text)
    return override.key_or_group, override.value()


@cache
def config(overrides: tuple[str, ...]) -> MemberConfig:
    """The config of overrides in order: a group's choice takes the place of an earlier one, and drops the values given
    before it that it does not have."""
    choices = {_parsed(text)[0]: text for text in overrides if (config_folder() / _parsed(text)[0]).is_dir()}
    flat = dict(_composed(tuple(choices.values())))
    last = {group: place for place, text in enumerate(overrides) for group in choices if choices[group] is text}
    for place, text in enumerate(overrides):
        key, value = _parsed(text)
        if text not in choices.values() and (key in flat or place > last.get(key.split(".")[0], -1)):
            flat[key] = value
    return member_config(_nested(flat))


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, name = key.split(".")
        inside = nested
        for group in groups:
            inside = inside.setdefault(group, {})
        inside[name] = value
    return nested


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, llama_folder: Path, gpt2_folder: Path) -> Places:
    """What `{name}` stands for in the table."""
    return make_places(tmp_path_factory.mktemp("keys"), llama_folder, gpt2_folder)


@pytest.fixture(scope="module")
def offline_hub(tmp_path_factory: pytest.TempPathFactory, llama_folder: Path) -> Iterator[None]:
    """`some/model` in the hub's cache, and no network."""
    cached = make_hub_cache(tmp_path_factory.mktemp("hub"), llama_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cached))
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cached / "datasets"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(cached / "modules"))
        quantising.stand_in(patch)
        yield from stand_in(patch)


def before_and_after(row: Row, places: Places) -> tuple[MemberConfig, MemberConfig]:
    """The configs of a row's two runs."""
    before, after = row.overrides(places)
    return config(tuple(before)), config(tuple(after))


@pytest.fixture(scope="module")
def trained(places: Places, offline_hub: None) -> dict[str, Run]:
    """Every run that shows what training or judging gives, by identity: one pass for each stream, in two sweeps, for
    each pass writes all that is known of its sweep's members, and most are of one stream."""
    shown = ("parameters", "metrics", "curves", "later")
    configs = [
        made
        for row in TABLE
        if row.effect in shown and not row.key.startswith("tracking.")
        for made in before_and_after(row, places)
    ]
    usual = Counter(map(stream_key, configs)).most_common(1)[0][0]
    parts = [[replace(one, name="usual") for one in configs if stream_key(one) == usual]]
    parts.append([one for one in configs if stream_key(one) != usual])
    with redirect_stdout(io.StringIO()):
        outcomes = [outcome for part in parts for outcome in run_sweep(part)]
    assert {outcome.reason for outcome in outcomes} == {None}
    return {outcome.identity: Run(outcome) for outcome in outcomes}


def change(before: Run, after: Run, name: str) -> float:
    """The largest change of a tensor's elements, as a share of the largest element; infinite for another shape."""
    a, b = before.weights[name], after.weights[name]
    return float((a - b).abs().max() / a.abs().max()) if a.shape == b.shape else inf


def run_alone(made: MemberConfig, output_dir: Path) -> Run:
    with redirect_stdout(io.StringIO()):
        return Run(run_sweep([replace(made, output_dir=str(output_dir))])[0])


def test_the_table_has_every_key_and_no_other() -> None:
    assert {row.key for row in TABLE} == set(known_keys())


def test_the_table_has_every_key_of_every_architecture(places: Places) -> None:
    """Or of one that it is built on."""
    shown: dict[str, set[str]] = {name: set() for name in ARCHITECTURES}
    for row in TABLE:
        shown[before_and_after(row, places)[0].sae.architecture].add(row.key)
    for name, facts in ARCHITECTURES.items():
        own = {f"sae.{field.name}" for field in fields(facts.Config)} - {"sae.architecture"}
        bases = [other for other, base in ARCHITECTURES.items() if issubclass(facts.Config, base.Config)]
        assert own <= set().union(*(shown[base] for base in bases)), name


def test_the_table_has_every_file_of_configs_sae() -> None:
    files = {file.stem for file in (config_folder() / "sae").glob("*.yaml")}
    assert set(OPTIONS) == files == {row.option for row in TABLE}


@pytest.mark.parametrize("row", rows())
def test_identity_and_stream_have_the_keys_that_change_results(row: Row, places: Places) -> None:
    before, after = before_and_after(row, places)
    assert flat_entries(config_entries(before))[row.key] != flat_entries(config_entries(after))[row.key]
    of_the_member = not row.key.startswith(RUNTIME) and row.key.removeprefix("model.") not in FACTS
    of_the_stream = of_the_member and row.key.startswith(OF_THE_STREAM)
    assert (row.key in flat_entries(identity_entries(after))) == of_the_member
    assert (member_identity(before) != member_identity(after)) == of_the_member
    assert (stream_key(before) != stream_key(after)) == of_the_stream


@pytest.mark.parametrize("row", rows("parameters"))
def test_a_key_that_changes_what_is_learned(row: Row, places: Places, trained: dict[str, Run]) -> None:
    """Encoder and decoder both: biases and thresholds could differ for what is done after training."""
    before, after = (trained[member_identity(made)] for made in before_and_after(row, places))
    assert change(before, after, "W_enc") > LEARNED
    assert change(before, after, "W_dec") > LEARNED


@pytest.mark.parametrize("row", rows("metrics"))
def test_a_key_that_changes_what_is_measured(row: Row, places: Places, trained: dict[str, Run]) -> None:
    before, after = (trained[member_identity(made)] for made in before_and_after(row, places))
    assert max(change(before, after, name) for name in before.weights) < ROUNDING
    assert before.metrics["ce_sae"] != pytest.approx(after.metrics["ce_sae"], rel=1e-6)


def test_evaluation_every_adds_to_the_curves(places: Places, trained: dict[str, Run]) -> None:
    (row,) = [row for row in TABLE if row.key == "evaluation.every"]
    before, after = (trained[member_identity(made)] for made in before_and_after(row, places))
    judged = [[line["tokens"] for line in run.curve if "heldout/ce_sae" in line] for run in (before, after)]
    assert judged == [[], [896, 1344]]
    assert before.metrics["ce_sae"] == pytest.approx(after.metrics["ce_sae"], rel=1e-6)


@pytest.mark.parametrize("row", rows("later"))
def test_a_key_that_asks_for_one_more_number(row: Row, places: Places, trained: dict[str, Run]) -> None:
    before, after = (trained[member_identity(made)].metrics for made in before_and_after(row, places))
    assert before["later_fvu"] is None
    assert 0 < after.pop("later_fvu") < 1
    assert after.items() <= before.items()


@pytest.mark.parametrize("row", rows("passes"))
def test_a_key_that_changes_how_the_model_is_read(row: Row, places: Places) -> None:
    before, after = (LanguageModelSource(made, ["blocks.1.hook_resid_post"]) for made in before_and_after(row, places))
    x_BD, again_BD = (source.block(0).activations["blocks.1.hook_resid_post"] for source in (before, after))
    assert torch.allclose(x_BD, again_BD, rtol=1e-5, atol=1e-6)
    assert (before.model.passes.harvest, after.model.passes.harvest) == (2, 4)


def test_where_the_model_is(places: Places) -> None:
    (row,) = [row for row in TABLE if row.effect == "elsewhere"]
    hook = "blocks.1.hook_resid_post"
    sources = [LanguageModelSource(made, [hook]) for made in before_and_after(row, places)]
    x_BD, again_BD = (source.block(0).activations[hook] for source in sources)
    assert torch.equal(x_BD, again_BD)
    away = [{name for name, each in one.model.module.named_parameters() if each.is_meta} for one in sources]
    assert away[0] == set()
    assert away[1] == {name for name, _ in sources[0].model.module.named_parameters() if name.startswith(ON_DISK)}


@pytest.mark.parametrize("row", rows("plan"))
def test_a_size_that_a_plan_needs(row: Row, places: Places, offline_hub: None) -> None:
    (before, after), size = before_and_after(row, places), row.key.removeprefix("model.")
    plans = [plan_sweep([made]) for made in (before, after)]
    costs = [
        (plan.members[0].d, plan.members[0].site, peak(group, group.banks)) for plan in plans for group in plan.groups
    ]
    assert costs[0] != costs[1]
    # d_head would follow from n_heads.
    unstated = [f"{key}=null" for key in {row.key, "model.n_heads" if size == "d_head" else row.key}]
    with pytest.raises(ConfigError, match=row.key):
        plan_sweep([config((*row.overrides(places)[0], *unstated))])


def test_how_a_gpu_multiplies_parts_banks(places: Places) -> None:
    """What it computes there is shown in tests/device."""
    (row,) = [row for row in TABLE if row.effect == "bank"]
    (group,) = plan_sweep(before_and_after(row, places)).groups
    asked = [bank.members[0].config.training.precision for bank in group.banks]
    assert [HALVES.get(precision) for precision in asked] == [torch.float16, None]


@pytest.mark.parametrize("row", rows("refused"))
def test_a_key_without_which_a_run_is_refused(row: Row, places: Places, offline_hub: None, tmp_path: Path) -> None:
    before, after = before_and_after(row, places)
    with pytest.raises(ConfigError, match=REFUSED_BY.get(row.key, row.key)):
        run_alone(before, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert run_alone(after, tmp_path).outcome.state == "finished"


def test_how_members_share_a_machine(places: Places) -> None:
    """Two of 154 MB each to a device, with steps of 370 MB."""
    shown = {}
    for row in (row for row in TABLE if row.effect == "turns"):
        waves = []
        for made in before_and_after(row, places):
            launcher, count = made.launcher, 4 if row.key == "launcher.hosts" else 2
            (group,) = plan_sweep([replace(made, seed=seed) for seed in range(count)]).groups
            limits = (None if gb is None else gb * 1e9 for gb in (launcher.memory_gb, launcher.host_memory_gb))
            passes = plan_passes(group, *limits, launcher.devices, launcher.hosts)
            waves.append([max(len(one.at(device)) for device in range(one.devices)) for one in passes])
        shown[row.key] = waves
    assert shown == {
        "launcher.memory_gb": [[1], [2]],
        "launcher.host_memory_gb": [[2], [1, 1]],
        "launcher.devices": [[2], [1]],
        "launcher.hosts": [[2, 1], [2]],
    }


def test_how_long_a_plan_says_that_it_takes(places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = [row for row in TABLE if row.effect == "hours"]
    told = []
    for made in before_and_after(row, places):
        run_sweep([replace(made, dry_run=True, output_dir=str(tmp_path))])  # elsewhere members may be finished
        told.append(" hours " in capsys.readouterr().out)
    assert told == [False, True]


def test_what_a_model_is_called_is_on_the_card_of_its_saes(places: Places, tmp_path: Path) -> None:
    (row,) = [row for row in TABLE if row.effect == "card"]
    called = []
    for place, made in enumerate(before_and_after(row, places)):
        folder = run_alone(made, tmp_path / str(place)).outcome.folder
        called.append(json.loads((folder / "cfg.json").read_text())["metadata"]["model_name"])
    assert called == ["local", "mine"]


def test_where_results_go(places: Places) -> None:
    found = {}
    for row in (row for row in TABLE if row.effect == "place"):
        _, after = before_and_after(row, places)
        with redirect_stdout(io.StringIO()):
            (outcome,) = run_sweep([after])
        found[row.key] = (outcome.state, outcome.folder.parent, (outcome.folder / WEIGHTS).is_file())
    outputs, elsewhere = Path(places["outputs"]), Path(places["elsewhere"])
    assert found == {
        "name": ("finished", outputs / "other", True),
        "output_dir": ("finished", elsewhere / "keys", True),
        "dry_run": ("planned", outputs / "dry", False),
        "data.cache": ("finished", outputs / "cached", True),
        "training.milestones": ("finished", outputs / "milestones", True),
    }
    assert list((outputs / "milestones").glob(f"*/milestones/200/{WEIGHTS}"))
    assert list((outputs / "kept").glob("*/000000-blocks.1.hook_resid_post.safetensors"))
    assert not (outputs / "dry").exists()


@pytest.mark.parametrize("row", rows("tracking"))
def test_what_wandb_is_told(row: Row, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = MagicMock()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    told = []
    for place, made in enumerate(before_and_after(row, places)):
        run_alone(made, tmp_path / str(place))
        named = row.key.removeprefix("tracking.")
        told.append([call.kwargs[named] for call in wandb.init.call_args_list])
        (member,) = plan_sweep([made]).members
        words, own = member.words, ["standard", "llama", "blocks.1.hook_resid_post"]
        wandb.init.reset_mock()
    assert (
        told
        == {
            "tracking.mode": [[], ["offline"] * 2],
            "tracking.project": [["sae-sweep"] * 2, ["mine"] * 2],
            "tracking.entity": [[None] * 2, ["us"] * 2],
            "tracking.group": [["keys"] * 2, ["mine"] * 2],
            "tracking.tags": [[["llama"], own], [["llama", "a", "b"], [*own, "a", "b"]]],
            "tracking.notes": [["the sweep keys", words], ["mine"] * 2],
        }[row.key]
    )


def test_what_is_kept_with_runs(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is, and the member where that is asked for; and who asks for a workspace gets one."""
    wandb, spaces = MagicMock(), MagicMock()
    wandb.init.return_value.settings.sync_dir = str(tmp_path)
    wandb.init.return_value.id = "id"
    for name, module in (("wandb", wandb), ("wandb_workspaces", spaces)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("sae_sweep.tracking.environment.find_spec", lambda name: name)
    made: list[Path] = []
    monkeypatch.setattr("sae_sweep.tracking.dashboard.make_dashboard", lambda folder, *rest: made.append(folder))
    told = {}
    for row in (row for row in TABLE if row.effect == "kept"):
        for place, config in enumerate(before_and_after(row, places)):
            run_alone(config, tmp_path / row.key / str(place))
            told[row.key, place] = (wandb.init.return_value.log_artifact.call_count, len(made))
            wandb.init.return_value.log_artifact.reset_mock()
            made.clear()
    assert told == {
        ("tracking.artifacts", 0): (1, 0),
        ("tracking.artifacts", 1): (2, 0),
        ("tracking.workspace", 0): (1, 0),
        ("tracking.workspace", 1): (1, 1),
    }


def test_how_often_a_line_is_logged(places: Places, tmp_path: Path) -> None:
    (row,) = [row for row in TABLE if row.key == "tracking.log_every"]
    runs = [run_alone(made, tmp_path / str(place)) for place, made in enumerate(before_and_after(row, places))]
    steps = [[line["step"] for line in run.curve] for run in runs]
    assert steps == [[0, 8, 16, 23], [0, 4, 8, 12, 16, 20, 23]]


@pytest.mark.parametrize("row", rows("checkpoints"))
def test_how_often_there_is_a_checkpoint(
    row: Row, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    keep = Keeper.keep

    def counted(keeper: Keeper, block: int, stamp: str, tokens: int, **how: Any) -> None:
        keep(keeper, block, stamp, tokens, **how)
        kept.append(tokens)

    monkeypatch.setattr(Keeper, "keep", counted)
    before, after = before_and_after(row, places)
    run_alone(before, tmp_path / "before")
    assert kept == []
    run_alone(after, tmp_path / "after")
    every = 64 if row.key == "training.checkpoint_minutes" else 512
    assert list(dict.fromkeys(kept)) == list(range(every, 1537, every))
