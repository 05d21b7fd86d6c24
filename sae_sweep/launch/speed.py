"""How many operations a second this machine's device does: measured once, in a process of its own, and kept.

What is measured are matrix products of the size that models make, for about two seconds, of which the fastest counts:
what else the machine does in these must not be kept. Planning loads no torch.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

from sae_sweep.config.schema import ModelConfig
from sae_sweep.folder.files import write_json_atomic
from sae_sweep.host.json_files import read_object
from sae_sweep.host.machine import cores
from sae_sweep.plan.devices import GPU

MEASURE_SECONDS, GIVE_UP_SECONDS = 2.0, 120.0
_PROGRAM = """
import sys
from time import perf_counter
import torch

device, dtype, seconds = torch.device(sys.argv[1]), getattr(torch, sys.argv[2]), float(sys.argv[3])
side = 1024 if device.type == "cpu" else 8192
a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
waited = torch.cuda.synchronize if device.type == "cuda" else lambda: None
a @ b
waited()
begun, fastest = perf_counter(), seconds
while perf_counter() - begun < seconds:
    last = perf_counter()
    a @ b
    waited()
    fastest = min(fastest, perf_counter() - last)
print(2 * side**3 / fastest)
"""


def measured_flops(model: ModelConfig) -> float | None:
    """Operations a second of the device that a model would be on; None where there is no such device, or nowhere to
    keep what is measured."""
    device = ("cuda" if GPU.exists() else "cpu") if model.device == "auto" else model.device
    key = f"{platform.node()} {device} {model.dtype} {os.environ.get('OMP_NUM_THREADS') or cores()}"
    try:
        file = _kept_in()
    except RuntimeError:  # who runs this has no home
        return None
    try:
        kept = read_object(file)
    except (OSError, ValueError):
        kept = {}
    if not isinstance(kept.get(key), float):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomic(file, {**kept, key: measured(device, model.dtype)})
            kept = read_object(file)
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
    found = kept[key]
    return found if isinstance(found, float) else None


def _kept_in() -> Path:
    """The user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sae-sweep" / "flops.json"


def measured(device: str, dtype: str) -> float:
    """Operations a second, measured now. Raises SubprocessError, or ValueError, where that cannot be."""
    arguments = [sys.executable, "-c", _PROGRAM, device, dtype, str(MEASURE_SECONDS)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=GIVE_UP_SECONDS)
    return float(done.stdout)
