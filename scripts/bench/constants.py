"""Whether constants that were measured on small shapes are right on larger ones, on a CPU.

    python scripts/bench/constants.py --out constants.json     d 576 to 2,304, 4,096 to 32,768 latents: a quarter hour
    python scripts/bench/constants.py --only CODE_ELEMENTS --shapes 576x4096

Each is set to smaller and larger values, and what depends on it is timed in turns; the table has the time with each
value in times with the shipped one (the median of rounds):

    PIECE_ROWS        rows of a product that are looked at together: the k largest of 2,048 rows
    CHUNK_ELEMENTS    pre-activations of a step together: a step of four TopK members (of one latent width each)
    CODE_ELEMENTS     codes in judging together: coding and decoding 2,048 activations
    DENSE_ABOVE       the dense step in times the sparse one, by the share of latents that fire: 1 where it belongs
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from sae_sweep.evaluation.sums import SaeSums
from sae_sweep.host import allocator
from sae_sweep.kernels.cpu import products
from sae_sweep.plan import constants
from scripts.bench.measure import Results, interleaved, machine, medians, seconds, show, shown
from scripts.bench.own import Own, Size

SHAPES = ((576, 4_096), (576, 32_768), (2_304, 16_384))
"""d and latents."""
BATCH, CONTEXT, K, MEMBERS, ROUNDS = 2_048, 256, 32, 4, 5
CPU = torch.device("cpu")
DENSITIES = (0.05, 0.1, 0.25, 0.5)

Work = Callable[[], object]


@dataclass(frozen=True)
class Constant:
    """One whose values are tried in turns."""

    put: Callable[[int], None]
    values: Sequence[int]
    shipped: int
    problem: Callable[[int, int], Work]
    """What depends on it, of d and latents."""


def put_piece_rows(value: int) -> None:
    products.PIECE_ROWS = value


def largest_products(d: int, width: int) -> Work:
    x_BD, W_FD, bias_F = torch.randn(BATCH, d), torch.randn(width, d), torch.zeros(width)
    return lambda: products.largest_products(x_BD, W_FD, [width], [K], bias_F)


def step_of_four(d: int, width: int) -> Work:
    own = Own("topk", K, _size(d, width), MEMBERS, settle=False)
    return lambda: own.step(0)


def coding(d: int, width: int) -> Work:
    sae = Own("topk", K, _size(d, width), settle=False).trainer.members[0].inference()
    x_BD, tokens_B = torch.randn(BATCH, d), torch.zeros(BATCH, dtype=torch.long)
    counts_B, sequence_B = torch.ones(BATCH, dtype=torch.bool), torch.arange(BATCH) // CONTEXT
    return lambda: SaeSums(sae, BATCH // CONTEXT, CPU).add(x_BD, tokens_B, counts_B, sequence_B)


CONSTANTS: Mapping[str, Constant] = {
    "PIECE_ROWS": Constant(put_piece_rows, (64, 256, 512, 2_048), products.PIECE_ROWS, largest_products),
    "CHUNK_ELEMENTS": Constant(
        partial(constants.CHUNK_ELEMENTS.__setitem__, "cpu"),
        (2**19, 2**23, 2**25, 2**27),
        constants.CHUNK_ELEMENTS["cpu"],
        step_of_four,
    ),
    "CODE_ELEMENTS": Constant(
        partial(constants.CODE_ELEMENTS.__setitem__, "cpu"),
        tuple(2**power for power in (18, 19, 21, 22, 23, 24)),
        constants.CODE_ELEMENTS["cpu"],
        coding,
    ),
}
DENSE = "DENSE_ABOVE"


def times_shipped(constant: Constant, d: int, width: int) -> dict[str, float]:
    """The time with each value, in times with the shipped one."""
    work = constant.problem(d, width)

    def timed(value: int) -> float:
        constant.put(value)
        return seconds(work, CPU)

    values = sorted({*constant.values, constant.shipped})
    try:
        took = medians(interleaved({str(one): lambda _, one=one: timed(one) for one in values}, ROUNDS))  # type: ignore[misc]
    finally:
        constant.put(constant.shipped)
    return {value: one / took[str(constant.shipped)] for value, one in took.items()}


def times_sparse(d: int, width: int) -> dict[str, float]:
    """The dense step in times the sparse one, by density."""
    found = {}
    for density in DENSITIES:
        own = Own("topk", density * width, _size(d, width), settle=False)

        def timed(dense: bool, own: Own = own) -> float:
            own.trainer.members[0].dense = dense
            return seconds(lambda: own.step(0), CPU)

        took = medians(
            interleaved({"sparse": lambda _: timed(dense=False), "dense": lambda _: timed(dense=True)}, ROUNDS)
        )
        found[str(density)] = took["dense"] / took["sparse"]
    return found


def _size(d: int, width: int) -> Size:
    return Size(d, width, BATCH, warm=2, rounds=100, blocks=1, lr=1e-4, device=CPU)


def main(arguments: list[str] | None = None) -> int:
    allocator.tune()
    first, _, rest = (__doc__ or "").partition("\n\n")
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=first, epilog=rest, formatter_class=plain)
    parser.add_argument("--only", default=",".join((*CONSTANTS, DENSE)), help="constants, with commas (all)")
    parser.add_argument("--shapes", default=",".join(f"{d}x{width}" for d, width in SHAPES), help="(%(default)s)")
    parser.add_argument("--out", type=Path, help="write everything here too, as JSON, beside what it holds of others")
    asked = parser.parse_args(arguments)
    results = Results("constants", asked.out)
    for name in asked.only.split(","):
        measured = times_sparse if name == DENSE else partial(times_shipped, CONSTANTS[name])
        found = {shape: measured(*map(int, shape.split("x"))) for shape in asked.shapes.split(",")}
        results.add(name, {"machine": machine(CPU), "times": found})
        values = list(next(iter(found.values())))
        show(name, ["d x F", *values], [[shape, *map(shown, one.values())] for shape, one in found.items()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
