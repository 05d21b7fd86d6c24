"""Which members share a device, and how often the model's pass is made."""

from functools import cache

import pytest
from hydra import compose, initialize_config_dir

from sae_sweep.config.files import config_folder
from sae_sweep.config.reading import member_config
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.plan.groups import Group, plan_sweep
from sae_sweep.plan.memory import peak
from sae_sweep.plan.placement import GB, Pass, Wave, plan_passes
from sae_sweep.plan.sizes import pinned_bytes

PAPER = ("+experiment=gated_gemma", "model.device=cuda")
GATED = (1e-3, 8e-4, 7e-4, 5e-4, 3e-4, 2e-4, 1e-4)
STATE = 12 * (2 * 131072 * 3072 + 3 * 131072 + 3072)
"""Bytes of one gated SAE's weights and moments."""


@cache
def config(*overrides: str) -> MemberConfig:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return member_config(compose("config", list(overrides)))


def gemma(count: int, *overrides: str) -> Group:
    """So many of the paper's gated SAEs."""
    own = [(*PAPER, "sae=gated", "sae.width=131072", f"sae.l1={l1}", *overrides) for l1 in GATED[:count]]
    (group,) = plan_sweep([config(*one) for one in own]).groups
    return group


def labels(passes: list[Pass]) -> list[list[list[str]]]:
    return [[[member.label for member in wave.members] for wave in one.waves] for one in passes]


def test_without_a_limit_all_share_the_device() -> None:
    (one,) = plan_passes(gemma(7), None, None)
    assert [len(wave.members) for wave in one.waves] == [7]
    assert one.host_bytes == 0


def test_waves_fill_the_device_in_order() -> None:
    group = gemma(7)
    (one,) = plan_passes(group, 80 * GB, 300 * GB)
    counts = [len(wave.members) for wave in one.waves]
    assert len(counts) > 1
    assert [m.label for wave in one.waves for m in wave.members] == [member.label for member in group.members]
    assert all(wave.peak_bytes <= 80 * GB for wave in one.waves)
    parts, one_more = [part for bank in group.banks for part in bank.chunks()], counts[0] + 1
    assert peak(group, parts[:one_more]).total + one_more * STATE > 80 * GB, "one more would not have fit twice"
    assert one.host_bytes == 7 * STATE
    assert one.group == group


def test_waves_leave_room_for_the_next_one_where_there_is_any() -> None:
    group = gemma(7)
    parts = [part for bank in group.banks for part in bank.chunks()]
    alone = peak(group, parts[:1]).total
    (one,) = plan_passes(group, alone + 1.1 * STATE, None)
    assert [len(wave.members) for wave in one.waves] == [1] * 7
    assert [wave.ahead for wave in one.waves] == [True] * 6 + [False]
    assert [wave.peak_bytes for wave in one.waves] == [alone + STATE] * 6 + [alone]
    (one,) = plan_passes(group, alone + 0.9 * STATE, None)
    assert [len(wave.members) for wave in one.waves] == [1] * 7
    assert not any(wave.ahead for wave in one.waves)
    assert not plan_passes(group, 400 * GB, None)[0].waves[0].ahead, "one wave stays"
    (on_cpu,) = plan_passes(gemma(7, "model.device=cpu"), 80 * GB, None)
    assert not any(wave.ahead for wave in on_cpu.waves)


def test_pinned_buffers_are_powers_of_two_where_they_are_small() -> None:
    assert [pinned_bytes(n) for n in (1, 4096, 4097, 2**24, 2**24 + 1)] == [1, 4096, 8192, 2**24, 2**24 + 1]
    wave = Wave(tuple(gemma(1).banks), 0)
    assert wave.waiting_bytes == STATE
    small = (*PAPER, "sae=topk", "sae.k=8", "sae.width=64")
    (group,) = plan_sweep([config(*small)]).groups
    assert Wave(tuple(group.banks), 0).waiting_bytes == 2**23, (
        "12 bytes of 2 x 64 x 3072 + 64 + 3072 numbers are more than 2^22"
    )


def test_a_larger_device_takes_no_more_turns() -> None:
    turns = [len(plan_passes(gemma(7), size * GB, None)[0].waves) for size in (65, 70, 80, 100, 140, 400)]
    assert turns == sorted(turns, reverse=True)
    assert turns[0] == 7
    assert turns[-1] == 1


def test_a_host_without_room_repeats_the_pass() -> None:
    passes = plan_passes(gemma(7), 62 * GB, 3.5 * STATE)
    assert [[len(wave) for wave in one] for one in labels(passes)] == [[1, 1, 1], [1, 1, 1], [1]]
    assert [one.host_bytes for one in passes] == [3 * STATE, 3 * STATE, 0]
    assert sorted(m.label for one in passes for m in one.group.members) == sorted(m.label for m in gemma(7).members)


def test_a_host_with_hardly_any_room_keeps_each_wave_on_the_device() -> None:
    passes = plan_passes(gemma(5), 80 * GB, 1.5 * STATE)
    single, parts = len(passes[0].group.members), [part for bank in gemma(5).banks for part in bank.chunks()]
    assert all(len(one.waves) == 1 for one in passes)
    assert single > 1
    assert peak(gemma(5), parts[:single]).total <= 80 * GB < peak(gemma(5), parts[: single + 1]).total


def test_sites_are_split_where_their_block_leaves_no_room() -> None:
    sites = [config(*PAPER, "sae=gated", "sae.width=16384", "sae.l1=1", f"site.layer={n}") for n in (5, 10, 15, 20)]
    (group,) = plan_sweep(sites).groups
    all_sites = plan_passes(group, 50 * GB, None)
    assert [one.group.hooks for one in all_sites] == [group.hooks]
    split = plan_passes(group, 38 * GB, None)
    assert [hook for one in split for hook in one.group.hooks] == list(group.hooks)
    assert len(split) > 1
    for one in split:
        assert all(member.site.hook in one.group.hooks for member in one.group.members)
        assert all(wave.peak_bytes <= 38 * GB for wave in one.waves)


def test_an_sae_larger_than_the_device_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError) as refused:
        plan_passes(gemma(2), 40 * GB, None)
    said = str(refused.value)
    assert said.startswith("launcher.memory_gb=40: gated-l1_0.001-w131072 alone needs ")
    assert "cannot be spread over devices" in said
    assert "\n" not in said


def test_parts_have_as_many_members_as_step_together() -> None:
    """2^21 pairs of 1024 tokens are 2048 latents."""
    widths = [512, 1024, 512, 64, 4096, 2000, 48, 1]
    asked = [config("sae=topk", "sae.k=1", f"sae.width={width}", f"seed={n}") for n, width in enumerate(widths)]
    (group,) = plan_sweep(asked).groups
    (bank,) = group.banks
    assert [[m.width for m in part.members] for part in bank.chunks()] == [
        [512, 1024, 512],
        [64],
        [4096],
        [2000, 48],
        [1],
    ]
