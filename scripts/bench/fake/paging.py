"""What bringing waves in and out costs beside their steps, and what of it is hidden. Predicted; nothing was timed.

Copies go over PCIe one after the other, at an assumed rate; steps take what `costs.py` says. While a wave is trained
the next one comes in, in the order of `training/devices/ferry.py`; or each comes in, is trained and goes out in turn.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sae_sweep.config.files import config_of
from sae_sweep.plan.groups import Group, plan_sweep
from sae_sweep.plan.members import Member
from sae_sweep.plan.placement import GB, plan_passes

PCIE = 50e9
"""Bytes a second each way, assumed: 16 lanes of the fifth generation carry 63 at most."""
DEVICES = (80.0, 94.0, 141.0)
"""GB of memory."""


def seconds(copies: Sequence[float], steps: Sequence[float], ahead: Sequence[bool]) -> float:
    """Of one block, given how long each wave takes to copy once, either way, and to train; and with which of them the
    next one comes in."""
    copier = trained = 0.0
    arrived: dict[int, float] = {}
    for n, (copy, training) in enumerate(zip(copies, steps, strict=True)):
        if n not in arrived:
            copier = arrived[n] = max(copier, trained) + copy
        begins = max(trained, arrived[n])
        if ahead[n]:
            copier = arrived[n + 1] = copier + copies[n + 1]
        trained = begins + training
        copier = max(copier, trained) + copy
    return copier


def gemma() -> Group:
    """The members of gated_gemma."""
    shared = (
        *("model=gemma-7b", "model.device=cuda", "site.layer=20", "data=hub", "data.path=any", "data.context=1024"),
        *("training.tokens=1.23e9", "training.batch_size=4096"),
    )
    gated = [("sae=gated_paper", "sae.width=131072", f"sae.l1={n}e-4") for n in range(1, 8)]
    standard = [("sae=standard_paper", "sae.width=196608", f"sae.l1={n}e-5") for n in range(1, 7)]
    (group,) = plan_sweep([config_of([*shared, *own]) for own in (*gated, *standard)]).groups
    return group


def paging(steps: Mapping[str, Mapping[str, Any]], gigabytes: float) -> dict[str, Any]:
    """Of gated_gemma on one device: a block's seconds of steps, of copies, and of both, given a step's milliseconds."""
    group = gemma()
    (made,) = plan_passes(group, gigabytes * GB, None)
    data = group.members[0].config.data
    batches = data.block_rows * (data.context - 1) // group.members[0].config.training.batch_size

    def of(member: Member) -> float:
        name = f"{member.config.sae.method()} {member.width:,} x {member.d:,}"
        return batches * float(steps[name]["ms"]) / 1e3

    training = [sum(map(of, wave.members)) for wave in made.waves]
    copies = [wave.state_bytes / PCIE for wave in made.waves]
    together = seconds(copies, training, [wave.ahead for wave in made.waves])
    in_turn = seconds(copies, training, [False] * len(copies))
    return {
        "device_gigabytes": gigabytes,
        "bytes_per_second": PCIE,
        "waves": len(made.waves),
        "waves_ahead": sum(wave.ahead for wave in made.waves),
        "gigabytes": round(2 * sum(wave.state_bytes for wave in made.waves) / GB, 1),
        "steps_seconds": round(sum(training), 2),
        "copies_seconds": round(2 * sum(copies), 2),
        "in_turn_seconds": round(in_turn, 2),
        "ahead_seconds": round(together, 2),
    }
