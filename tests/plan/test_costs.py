"""What a plan says that a pass costs, against a run of it at toy scale."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from sae_sweep.architectures.base import ARCHITECTURES
from sae_sweep.config.files import config_of
from sae_sweep.config.schema import MemberConfig
from sae_sweep.evaluation.language_model import LanguageModelEvaluator
from sae_sweep.launch.local import run_sweep
from sae_sweep.plan.costs import PassCost, checkpoint_bytes, pass_cost, result_bytes
from sae_sweep.plan.groups import Group, plan_sweep
from sae_sweep.plan.placement import plan_passes
from sae_sweep.training.run import checkpointing as keeper
from sae_sweep.training.run.sources import LanguageModelSource

HEADER_BYTES = 2_500
"""Names and places of a file's tensors, and the few numbers of a member's state that are no tensors of its size."""
SHARED = (
    *("data.context=16", "data.block_rows=32", "data.rows_per_forward=8", "data.bos=never", "tracking=none"),
    *("training.batch_size=64", "training.tokens=2e3", "evaluation.tokens=320", "model.device=cpu"),
)
TOY = ("data=toy", "data.toy.dimensions=24", "data.toy.latents=30", "data.toy.active=3", *SHARED)


def config(*overrides: str) -> MemberConfig:
    return config_of(overrides)


def cost(group: Group, devices: int = 1) -> PassCost:
    (one,) = plan_passes(group, None, None, devices)
    return pass_cost(one)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text(Path(os.__file__).read_text(encoding="utf-8"))
    return file


@pytest.fixture(scope="module")
def read(llama_folder: Path, text: Path) -> tuple[str, ...]:
    return ("model=local", f"model.path={llama_folder}", "data=text", f"data.path={text}", *SHARED)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "temporal"])  # of no toy data
def test_bytes_of_a_checkpoint_and_of_results(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(*TOY, f"sae={architecture}", "sae.l0=4", "sae.width=512", f"output_dir={tmp_path}")
    ((member,),) = [group.members for group in plan_sweep([made]).groups]
    kept: list[int] = []
    save = keeper.save

    def seen(*arguments: Any) -> Any:
        checkpoint = save(*arguments)
        kept.append((checkpoint.folder / checkpoint.members[0].file).stat().st_size)
        return checkpoint

    monkeypatch.setattr(keeper, "save", seen)
    (outcome,) = run_sweep(
        [
            config(
                *TOY,
                f"sae={architecture}",
                "sae.l0=4",
                "sae.width=512",
                f"output_dir={tmp_path}",
                "training.checkpoint_tokens=1000",
            )
        ]
    )
    assert kept
    assert 0 <= kept[-1] - checkpoint_bytes(member) < HEADER_BYTES
    files = [file for file in outcome.folder.iterdir() if file.suffix in (".safetensors", ".jsonl")]
    assert 0 <= abs(sum(file.stat().st_size for file in files) - result_bytes(member)) < HEADER_BYTES


def test_bytes_of_the_cache(read: tuple[str, ...], tmp_path: Path) -> None:
    """No special token: all positions count but the first of each row."""
    asked = [
        config(
            *read,
            "sae=topk",
            "sae.k=3",
            "sae.width=40",
            f"site.layer={layer}",
            f"output_dir={tmp_path}",
            f"data.cache={tmp_path}/kept",
        )
        for layer in (1, 2)
    ]
    (group,) = plan_sweep(asked).groups
    run_sweep(asked)
    files = list((tmp_path / "kept").rglob("*hook*.safetensors"))
    found, said = sum(file.stat().st_size for file in files), cost(group)
    assert len(files) == 2 * said.blocks
    assert said.cache_bytes <= found < said.cache_bytes * 1.02


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


ON_A_CPU = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
"""What torch counts on a GPU, but not here."""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Operations of the matrix products of blocks and of judging, as torch counts them."""
    found = {"harvest": 0.0, "judging": 0.0}

    def watch(owner: type, name: str, kind: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def counting(*arguments: Any, **named: Any) -> Any:
            with FlopCounterMode(display=False, custom_mapping=ON_A_CPU) as counter:
                result = real(*arguments, **named)
            found[kind] += counter.get_total_flops()
            return result

        monkeypatch.setattr(owner, name, counting)

    watch(LanguageModelSource, "block", "harvest")
    watch(LanguageModelEvaluator, "evaluate", "judging")
    return found


def test_operations_of_the_model(read: tuple[str, ...], counted: dict[str, float], tmp_path: Path) -> None:
    """On the model that ships: of the smaller ones the parts that are not counted would be a large share."""
    of_demo = [override for override in read if not override.startswith("model") and not override.startswith("data=")]
    asked = [
        config(
            "data=demo",
            *[o for o in of_demo if not o.startswith("data.path")],
            "model.device=cpu",
            "sae=topk",
            f"sae.k={k}",
            "sae.width=256",
            f"site.layer={layer}",
            f"output_dir={tmp_path}",
            "data.context=128",
            "evaluation.every=1000",
            "training.batch_size=512",
            "training.tokens=2e4",
        )
        for layer in (1, 2)
        for k in (4, 8)
    ]
    (group,) = plan_sweep(asked).groups
    run_sweep(asked)
    (device,) = cost(group).devices
    assert device.harvest_flops == pytest.approx(counted["harvest"], rel=0.15)
    assert device.judging_flops == pytest.approx(counted["judging"], rel=0.15)


def test_devices_share_what_one_does(read: tuple[str, ...]) -> None:
    asked = [
        config(*read, "sae=topk", "sae.k=3", "sae.width=40", f"site.layer={layer}", f"training.batch_size={batch}")
        for layer in (1, 2)
        for batch in (64, 128)
    ]
    (group,) = plan_sweep(asked).groups
    one, four = cost(group), cost(group, 4)
    (alone,) = one.devices
    for kind in ("harvest_flops", "encoder_flops", "dense_flops"):
        assert sum(getattr(device, kind) for device in four.devices) == getattr(alone, kind)
    assert (alone.received_bytes, one.sent_bytes) == (0, 0)
    # Four forward passes of 8 rows, one each; every device has one site, of 32 numbers in float32.
    assert [device.block_bytes for device in four.devices] == [32 * 16 * 32 * 4] * 4
    counted = 32 * 15 * 32 * 4
    assert [device.received_bytes for device in four.devices] == [counted * 3 // 4] * 4
    assert four.sent_bytes == 3 * counted


@pytest.mark.parametrize(("every", "times"), [(1000, 2), (896, 3), (500, 4), (1, 5)])
def test_judging_on_the_way_costs_as_often(every: int, times: int, read: tuple[str, ...]) -> None:
    """After blocks of 448 tokens, 7 steps: at 448, 896, 1344 and 1792 of 1984; and at the end."""
    own = (*read, "sae=topk", "sae.k=3", "sae.width=40", "site.layer=1")
    (once,) = cost(plan_sweep([config(*own)]).groups[0]).devices
    said = cost(plan_sweep([config(*own, f"evaluation.every={every}")]).groups[0])
    assert said.judgements == times
    assert said.devices[0].judging_flops == times * once.judging_flops


def test_a_member_is_judged_as_often_as_its_own_run_says(read: tuple[str, ...]) -> None:
    """In whatever order: of 15 steps, three blocks, twice on the way, beside one that is judged four times there."""
    own = (*read, "sae=topk", "sae.k=3", "sae.width=40", "site.layer=1", "evaluation.every=1")
    short, long = config(*own, "training.tokens=1e3"), config(*own)
    both, swapped, one, other = (
        cost(plan_sweep(asked).groups[0]) for asked in ([short, long], [long, short], [short], [long])
    )
    assert (one.judgements, other.judgements, both.judgements, swapped.judgements) == (3, 5, 5, 5)
    (alone,), (together,) = other.devices, both.devices
    sae = 4 * 32 * 40  # what one more member takes beside a suffix pass after two of four blocks, and its logits
    assert together.judging_flops - alone.judging_flops == 3 * HELD_OUT * (2 * BLOCK + LOGITS + sae)


def test_hours_are_those_of_the_slowest_device(read: tuple[str, ...]) -> None:
    asked = [config(*read, "sae=topk", "sae.k=3", f"sae.width={width}", "site.layer=1") for width in (40, 4000)]
    two = cost(plan_sweep(asked).groups[0], 2)
    slow = max(device.least_flops for device in two.devices), max(device.most_flops for device in two.devices)
    assert two.hours(1e9) == tuple(pytest.approx(flops / 1e9 / 3600) for flops in slow)
    assert two.hours(2e9)[0] == pytest.approx(two.hours(1e9)[0] / 2)


def model_flops(read: tuple[str, ...], *members: tuple[str, ...]) -> tuple[float, float]:
    """What a plan of these members says that the model does in training, and in judging, in operations."""
    plan = plan_sweep([config(*read, "sae=topk", "sae.k=3", "sae.width=40", *own) for own in members])
    ((device,),) = [cost(group).devices for group in plan.groups]
    return device.model_flops, device.judging_flops


# Of the llama of `conftest.py`, per token: d 32, 4 heads of 8, MLPs of 80, 4 blocks, 300 tokens; rows of 16.
BLOCK = 2 * (4 * 32 * 32 + 3 * 32 * 80) + 4 * 16 * 32
LOGITS = 2 * 32 * 300
READ = 5 * 32 * 16
"""Tokens: 31 steps of 64 are five blocks of 480 counted positions."""
TRAINED, HELD_OUT = 2_000, 320


def test_a_crosscoder_needs_the_model_up_to_its_last_site(read: tuple[str, ...]) -> None:
    training, judging = model_flops(read, ("site.across=[0,3]",))
    assert training == READ * 4 * BLOCK
    passes = 3 * (3 + 0) * BLOCK + (1 + 3 * 2) * LOGITS  # after either site: two ablations and its reconstruction
    assert judging == HELD_OUT * (4 * BLOCK + passes + 4 * 64 * 40)


def test_a_transcoder_needs_the_model_up_to_what_it_writes(read: tuple[str, ...]) -> None:
    training, judging = model_flops(read, ("site.layer=0", "site.output=blocks.2.mlp.hook_post"))
    assert training == READ * 3 * BLOCK
    assert judging == HELD_OUT * (4 * BLOCK + 3 * 2 * BLOCK + 4 * LOGITS + 2 * (32 + 80) * 40)


def test_layers_are_spliced_together_from_the_first(read: tuple[str, ...]) -> None:
    training, judging = model_flops(read, ("site=clt", "site.layer=null", "site.across=[1,3]", "sae=batchtopk"))
    assert training == READ * 4 * BLOCK
    passes = 3 * 2 * BLOCK + (1 + 3) * LOGITS
    assert judging == HELD_OUT * (4 * BLOCK + passes + 2 * 32 * (2 + 3) * 40)


def test_an_objective_that_is_not_local_needs_all_of_the_model_and_passes_of_its_own(read: tuple[str, ...]) -> None:
    local, spliced = ("site.layer=1",), ("site.layer=1", "training.objective=e2e")
    assert model_flops(read, local)[0] == READ * 2 * BLOCK
    own = TRAINED * (2 * 2 * BLOCK + 3 * LOGITS)  # the last two blocks forth and back, clean and own logits and back
    assert model_flops(read, local, spliced)[0] == READ * 4 * BLOCK + own
    # Of 32 rows a block has 8 steps of 4 whole ones, first tokens among them: 31 steps are four blocks.
    assert model_flops(read, spliced)[0] == 4 * 32 * 16 * 4 * BLOCK + own
