"""What a member costs as a sweep grows: time against members, latents, activation size, L0 and tokens; peak memory.

    python scripts/bench/scaling.py --out scaling.json          topk and standard: about ten minutes on two cores
    python scripts/bench/scaling.py --only gated --skip memory  one architecture, times alone
    python scripts/bench/scaling.py --quick                     does it run? (the numbers mean nothing)
    python scripts/bench/scaling.py --device cuda

Each table varies one thing and leaves the rest at 8 members, d 64, width 1024, batch 2048, L0 32. All rows of a table
are trained for --warm steps on synthetic activations and set to their L0; then, in turns, --rounds times, each takes a
block of steps. The tokens table times whole trainings from the first step on, in turns too.

    us/token/SAE      median over the rounds, per token and member
    / first           in those of the table's first row
    growth            of the varied number since the first row: a cost in proportion to it would be the same

Memory: a process per row trains and judges its members for a few steps on the model that ships, and tells the most
that it held, libraries too (`memory.py`); beside it what `dry_run=true` predicts for the same group. The first row is
next to nothing but libraries, the model and the text: the last column compares what the others add to it.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command sets it; read when torch is first imported

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sae_sweep.host import allocator as process
from sae_sweep.plan.sizes import bytes_text
from scripts.bench.measure import Results, interleaved, machine, medians, ratio, seconds, show, shown
from scripts.bench.memory import in_child
from scripts.bench.own import ARCHITECTURES, BATCHES_PER_BLOCK, Own, Size

AXES: dict[str, tuple[int, ...]] = {
    "members": (1, 2, 4, 8, 16),
    "width": (256, 512, 1024, 2048, 4096),
    "d": (32, 64, 128, 256),
    "l0": (8, 16, 32, 64, 128),
}
TOKENS: tuple[int, ...] = (100_000, 400_000, 1_600_000)
MEMORY: tuple[tuple[int, int], ...] = ((1, 256), (1, 4096), (4, 4096), (8, 4096), (1, 16384), (2, 16384))
"""Members and width of the rows."""
MEMORY_STEPS = 20
"""More than the trainer takes before it looks at the route of each member."""
TABLES = (*AXES, "tokens", "memory")


@dataclass(frozen=True)
class Row:
    """A group of members that are equal but for their seeds."""

    members: int = 8
    width: int = 1024
    d: int = 64
    l0: int = 32


QUICK = Row(members=2, width=64, d=16, l0=4)


def time_rows(architecture: str, own: Sequence[Row], size: Size) -> list[dict[str, Any]]:
    """Seconds of each row for the steps of one block, in turns."""
    groups = {
        str(i): Own(architecture, row.l0, replace(size, d=row.d, width=row.width), row.members)
        for i, row in enumerate(own)
    }
    subjects = {name: _block_of_steps(group) for name, group in groups.items()}
    rounds = interleaved(subjects, size.rounds // BATCHES_PER_BLOCK - 1)
    tokens = {name: BATCHES_PER_BLOCK * size.batch * group.members for name, group in groups.items()}
    return [
        {**asdict(row), **_cost(rounds[str(i)], tokens[str(i)]), "l0_reached": groups[str(i)].l0()}
        for i, row in enumerate(own)
    ]


def _block_of_steps(group: Own) -> Callable[[int], float]:
    def steps() -> None:
        for index in range(BATCHES_PER_BLOCK):
            group.step(index)

    return lambda _: seconds(steps, group.size.device)


def time_trainings(architecture: str, row: Row, tokens: Sequence[int], size: Size) -> list[dict[str, Any]]:
    """Seconds of whole trainings of so many tokens, in turns."""

    def training(steps: int) -> Callable[[int], float]:
        own = replace(size, d=row.d, width=row.width, warm=0, rounds=steps)

        def measure(_: int) -> float:
            group = Own(architecture, row.l0, own, row.members, settle=False)
            return seconds(lambda: group.train(0, steps), size.device)

        return measure

    steps = {str(count): count // size.batch for count in tokens}
    rounds = interleaved({name: training(own) for name, own in steps.items()}, size.rounds)
    return [
        {**asdict(row), "tokens": int(name), **_cost(own, steps[name] * size.batch * row.members)}
        for name, own in rounds.items()
    ]


def _cost(rounds: Sequence[float], tokens: int) -> dict[str, Any]:
    middle = medians({"row": rounds})["row"]
    return {"us_per_token_and_sae": 1e6 * middle / tokens, "rounds_seconds": list(rounds)}


def memory_overrides(architecture: str, row: Row, asked: argparse.Namespace) -> list[str]:
    """What follows `sae-sweep`, a member's seed after each plus: a short run."""
    data = ["model=demo", "data=demo", "site.layer=2"]
    if asked.quick:
        data = ["data=toy", f"data.toy.dimensions={row.d}", f"data.toy.latents={2 * row.d}"]
    return [
        *(*data, f"model.device={asked.device}", f"sae={architecture}"),
        *(f"sae.l0={row.l0}", f"sae.width={row.width}", f"training.batch_size={asked.batch}"),
        *(f"training.tokens={MEMORY_STEPS * asked.batch}", "evaluation.tokens=2e4"),
        *(part for seed in range(row.members) for part in ("+", f"seed={seed}")),
    ]


def measure_memory(architecture: str, row: Row, asked: argparse.Namespace) -> dict[str, Any]:
    """The peak of a process of its own, and the prediction. Raises RuntimeError."""
    print(f"{architecture}: memory of {row.members} members of {row.width} latents", file=sys.stderr)
    found = in_child(" ".join(memory_overrides(architecture, row, asked)))
    peak, predicted = found["measured"], found["estimated"]
    sizes = {"peak_bytes": peak, "predicted_bytes": predicted, "measured_per_predicted": peak / predicted}
    return {**asdict(row), "d": found["d"], "batch": asked.batch, "on": found["on"], **sizes}


def beyond_first(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with the ratio of what it adds to the first one."""

    def added(row: Mapping[str, Any], key: str) -> int:
        return int(row[key] - found[0][key])

    name = "measured_per_predicted_beyond_first"
    return [{**row, name: ratio(added(row, "peak_bytes"), added(row, "predicted_bytes"))} for row in found]


def measure(architecture: str, asked: argparse.Namespace, size: Size) -> dict[str, Any]:
    """All tables of one architecture but for those to skip."""
    row, axes, tokens, memory = Row(), AXES, TOKENS, MEMORY
    if asked.quick:
        row, tokens, memory = QUICK, (2 * size.batch, 4 * size.batch), ((1, QUICK.width), (2, QUICK.width))
        axes = {axis: (value, 2 * value) for axis, value in asdict(QUICK).items()}
    found: dict[str, Any] = {"machine": machine(size.device), "settings": {**asdict(size), "device": str(size.device)}}
    for axis in (axis for axis in axes if axis not in asked.skip):
        print(f"{architecture}: {axis}", file=sys.stderr)
        found[axis] = time_rows(architecture, [replace(row, **{axis: value}) for value in axes[axis]], size)
    if "tokens" not in asked.skip:
        print(f"{architecture}: tokens", file=sys.stderr)
        found["tokens"] = time_trainings(architecture, row, tokens, replace(size, rounds=asked.repeats))
    if "memory" not in asked.skip:
        own = [replace(row, members=members, width=width) for members, width in memory]
        found["memory"] = beyond_first([measure_memory(architecture, each, asked) for each in own])
    return found


def print_tables(architecture: str, found: Mapping[str, Any]) -> None:
    cells = [_cells(axis, row, found[axis][0]) for axis in TABLES[:-1] for row in found.get(axis, [])]
    show(f"{architecture}: time", ["varied", "to", "us/token/SAE", "/ first", "growth"], cells)
    header = ["members", "width", "d", "on", "measured", "predicted", "measured/predicted", "beyond the first row"]
    show(f"{architecture}: peak memory", header, [_memory_cells(row) for row in found.get("memory", [])])


def _memory_cells(row: Mapping[str, Any]) -> list[str]:
    sizes = [str(row["members"]), str(row["width"]), str(row["d"]), row["on"]]
    both = [bytes_text(row["peak_bytes"]), bytes_text(row["predicted_bytes"])]
    return [*sizes, *both, shown(row["measured_per_predicted"]), shown(row["measured_per_predicted_beyond_first"])]


def _cells(axis: str, row: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    cost = row["us_per_token_and_sae"]
    ratios = (ratio(cost, first["us_per_token_and_sae"]), ratio(row[axis], first[axis]))
    return [axis, f"{row[axis]:g}", shown(cost), *map(shown, ratios)]


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    first, _, rest = (__doc__ or "").partition("\n\n")
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=first, epilog=rest, formatter_class=plain)
    parser.add_argument("--only", default="standard,topk", help="architectures, with commas (%(default)s)")
    parser.add_argument("--skip", default="", help=f"tables to leave out, of {','.join(TABLES)} (none)")
    parser.add_argument("--batch", type=int, default=2048, help="tokens per step (%(default)s)")
    parser.add_argument("--warm", type=int, default=100, help="training steps before timing (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="times that each row is timed (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="the same of the tokens table (%(default)s)")
    parser.add_argument("--lr", type=float, default=3e-3, help="(%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--out", type=Path, help="write everything here too, as JSON, beside what it holds of others")
    found = parser.parse_args(arguments)
    found.only, found.skip = found.only.split(","), found.skip.split(",") if found.skip else []
    for name, asked, known in (("--only", found.only, ARCHITECTURES), ("--skip", found.skip, TABLES)):
        unknown = sorted(set(asked) - set(known))
        if unknown:
            parser.error(f"{name}: no {', '.join(unknown)} among {', '.join(known)}")
    if found.quick:
        found.batch, found.warm, found.rounds, found.repeats = 64, 4, 2, 2
    try:
        found.results = Results("scaling", found.out)
    except ValueError as error:
        parser.error(f"--out: {error}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    process.tune()  # as cli.main does, but here torch is imported before that
    asked = parsed(arguments)
    size = Size(
        d=Row.d,
        width=Row.width,
        batch=asked.batch,
        warm=asked.warm,
        rounds=BATCHES_PER_BLOCK * (asked.rounds + 1),
        blocks=4,
        lr=asked.lr,
        device=torch.device(asked.device),
    )
    for architecture in asked.only:
        found = measure(architecture, asked, size)
        asked.results.add(architecture, found)
        print_tables(architecture, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
