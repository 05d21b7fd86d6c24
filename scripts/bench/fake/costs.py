"""What a step costs by its own log of operators, at real shapes and assumed rates. Predicted; nothing was timed.

Each operator takes as long as its products at the rate of their format, or its bytes at the memory's, whichever is
longer, and a launch; operators follow each other. The rates are of an H100's order of size, and assumed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sae_sweep.training.step import rooms
from scripts.bench.fake.device import fake_cuda
from scripts.bench.fake.log import Log, Op
from scripts.bench.fake.trainers import block, member, trainer

RATES = {"float32": 50e12, "tf32": 400e12, "bfloat16": 790e12, "float16": 790e12, "float64": 34e12}
"""Operations a second, by what a product is multiplied in."""
MEMORY = 4e12
"""Bytes a second."""
LAUNCH = 3e-6
"""Seconds of each operator beside its work."""
BATCH, L0 = 4096, 64
CANDIDATES = 1.15
"""Times the entries: what products of 16 bits leave, at most, in a test at d 2,304 (`tests/kernels/test_halved.py`)."""


@dataclass(frozen=True)
class Case:
    """A member at its real size."""

    name: str
    sae: str
    width: int
    d: int
    knobs: tuple[tuple[str, Any], ...]

    @property
    def floor(self) -> float:
        """Seconds: one product of tensor cores, 24 bytes per parameter for Adam, rows of entries read once each way,
        in half precision."""
        parameters = 2 * self.width * self.d
        product = BATCH * parameters / RATES["bfloat16"]
        return product + (24 * parameters + 2 * 2 * BATCH * L0 * self.d) / MEMORY


CASES = (
    Case("gated 131,072 x 3,072", "gated_paper", 131_072, 3_072, (("sae_l1", 0.1), ("sae_coefficient_unit", "mean_d"))),
    Case("standard 196,608 x 3,072", "standard_paper", 196_608, 3_072, (("sae_l1", 0.1),)),
    Case("topk 16,384 x 2,304", "topk_paper", 16_384, 2_304, (("sae_k", L0),)),
    Case("standard 16,384 x 2,304", "standard_paper", 16_384, 2_304, (("sae_l1", 0.1),)),
)


@dataclass(frozen=True)
class Step:
    """One step as it was asked for."""

    ops: tuple[Op, ...]
    waits: dict[str, int]
    held: int
    """Bytes at its fullest, beside members and the block."""

    @property
    def seconds(self) -> float:
        """By the assumed rates."""
        return sum(map(seconds, self.ops))

    @property
    def flops(self) -> int:
        """Of products."""
        return sum(op.flops for op in self.ops)

    @property
    def bytes(self) -> int:
        """Read and written."""
        return sum(op.read + op.written for op in self.ops)

    def costliest(self, count: int = 20) -> list[tuple[str, float]]:
        """Seconds by operator and place, the longest first."""
        found: Counter[str] = Counter()
        for op in self.ops:
            found[f"{op.name} at {op.place}"] += seconds(op)  # type: ignore[assignment]  # of floats
        return [(name, float(each)) for name, each in found.most_common(count)]


def seconds(op: Op) -> float:
    """Of one operator."""
    return max(op.flops / RATES.get(op.kind, MEMORY), (op.read + op.written) / MEMORY) + LAUNCH


def steps(case: Case, l0: float = L0, **keys: Any) -> tuple[Step, Step]:
    """A dense step, the first, and a plain one with so many entries per token."""
    entries, crowd = int(l0 * BATCH), int(CANDIDATES * l0 * BATCH)
    looked = [entries, 0]  # the entries, and how many latents may soon be dead
    found: list[Step] = []

    def item(place: str) -> Any:
        return looked.pop(0) if place == "training/step/trainer:_look_at" and looked else None

    with fake_cuda(item=item) as log:
        own = {"sae_width": case.width, "training_batch_size": BATCH, "training_tokens": BATCH * 300_000.0}
        made = trainer([member(case.d, case.sae, case.name, **own, **dict(case.knobs), **keys)])
        whole = block(case.d, 3 * BATCH)
        log.clear()
        log.held = lambda room: min(room, entries if room <= rooms.SLACK * entries + rooms.LEAST else crowd)
        begun = log.live

        def after() -> None:
            found.append(_step(log, begun))
            log.clear()

        made.consume(whole, after)
    return found[0], found[2]


def _step(log: Log, begun: int) -> Step:
    return Step(tuple(log.ops), dict(log.waits), log.peak - begun)


def table(cases: Sequence[Case] = CASES, precisions: Sequence[str] = ("auto", "bf16")) -> dict[str, dict[str, float]]:
    """By case, and `training.precision` where that is not auto: what docs/cuda.md says of it."""
    return {
        case.name if precision == "auto" else f"{case.name}, {precision}": _numbers(case, precision)
        for case in cases
        for precision in precisions
    }


def _numbers(case: Case, precision: str) -> dict[str, float]:
    dense, plain = steps(case, training_precision=precision)
    return {
        "ms": round(1e3 * plain.seconds, 2),
        "floor_ms": round(1e3 * case.floor, 2),
        "floors": round(plain.seconds / case.floor, 2),
        "waits": sum(plain.waits.values()),
        "teraflop": round(plain.flops / 1e12, 3),
        "gigabytes": round(plain.bytes / 1e9, 2),
        "held_gigabytes": round(plain.held / 1e9, 2),
        "dense_ms": round(1e3 * dense.seconds, 1),
        "dense_held_gigabytes": round(dense.held / 1e9, 2),
        "operators": len(plain.ops),
    }
