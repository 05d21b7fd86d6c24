"""Everything that is to be known of one GPU, in at most eight minutes; on a CPU what is predicted of it.

    python scripts/bench/gpu.py --out tests/evidence/bench/gpu.json          on a GPU
    python scripts/bench/gpu.py --out tests/evidence/bench/cuda_model.json   on a CPU: the costs of `fake/costs.py`

Each part runs while there is time; what did not run is "not measured", what failed says how. Steps are of trained size
with as many latents firing as real ones have, by their biases; predictions stand beside what was measured.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scripts.bench.fake import costs
from scripts.bench.fake.costs import CASES, Case
from scripts.bench.fake.paging import DEVICES, paging
from scripts.bench.gpu_parts import PARTS
from scripts.bench.measure import machine, show, write

BUDGET = 480.0
"""Seconds."""
NOT_MEASURED = "not measured"


def predicted() -> dict[str, Any]:
    """The costs of a step, by case, at the assumed rates."""
    rates = {"operations": costs.RATES, "memory": costs.MEMORY, "launch": costs.LAUNCH}
    steps = costs.table()
    turns = [paging(steps, gigabytes) for gigabytes in DEVICES]
    return {"benchmark": "cuda_model", "predicted": True, "rates": rates, "steps": steps, "paging": turns}


def measured(device: torch.device, cases: tuple[Case, ...] = CASES, budget: float = BUDGET) -> dict[str, Any]:
    """What every part finds, in their order, while there is time."""
    begun = time.perf_counter()
    found: dict[str, Any] = {"benchmark": "gpu", "predicted": False, "machine": machine(device)}
    for name, part in PARTS.items():
        left = budget - (time.perf_counter() - begun)
        found[name] = _result(part, device, cases) if left > 0 else NOT_MEASURED
        print(f"{name}: {found[name]}", flush=True)
    return found


def _result(
    part: Callable[[torch.device, tuple[Case, ...]], Any], device: torch.device, cases: tuple[Case, ...]
) -> Any:
    """Of one part; a line where it fails, for the others to go on."""
    try:
        return part(device, cases)
    except Exception as error:
        return "failed: " + " ".join(f"{type(error).__name__}: {error}".split())


def told(steps: Mapping[str, Mapping[str, Any]]) -> None:
    """The table of steps."""
    header = ["predicted", "ms", "floor", "in floors", "waits", "TFLOP", "GB moved", "GB held", "dense ms"]
    keys = ("ms", "floor_ms", "floors", "waits", "teraflop", "gigabytes", "held_gigabytes", "dense_ms")
    show("One step, predicted and never timed", header, [[n, *(f"{s[k]:g}" for k in keys)] for n, s in steps.items()])


def told_paging(turns: Sequence[Mapping[str, Any]]) -> None:
    """The table of turns."""
    header = ["GB of device", "waves", "with the next", "GB both ways", "s steps", "s copies", "s in turn", "s so"]
    keys = (
        *("device_gigabytes", "waves", "waves_ahead", "gigabytes"),
        *("steps_seconds", "copies_seconds", "in_turn_seconds", "ahead_seconds"),
    )
    show("A block of gated_gemma's members in turns, predicted", header, [[f"{t[k]:g}" for k in keys] for t in turns])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    if torch.cuda.is_available():
        write(options.out, measured(torch.device("cuda:0")))
        return
    found = predicted()
    told(found["steps"])
    told_paging(found["paging"])
    write(options.out, found)


if __name__ == "__main__":
    main()
