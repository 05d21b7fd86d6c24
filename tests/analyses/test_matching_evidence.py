"""What assigning large dictionaries takes, of random directions, which is the hardest case, and of noisy copies."""

import json
import subprocess
import sys

import pytest

CODE = """
import json, resource, sys, time, torch
from sae_sweep.analyses.matches.assignment import assigned, held_bytes

def used():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

import scipy.optimize, scipy.sparse.csgraph
size, noise = int(sys.argv[1]), float(sys.argv[2])
generator = torch.Generator().manual_seed(0)
rows = torch.randn(size, 128, generator=generator)
others = noise * torch.randn(size, 128, generator=generator) + (rows if noise < 10 else 0)
before = 4096 * int(open("/proc/self/statm").read().split()[1])
begun = time.monotonic()
mean = assigned(rows, others, candidates=32).mean().item()
found = {"mean": mean, "seconds": time.monotonic() - begun, "gigabytes": used() / 1e9}
held = used() - before - 4 * (rows.numel() + others.numel())  # their unit rows
planned = held_bytes(size, size, 32)
print(json.dumps(found | {"held": held / 1e9, "planned": planned / 1e9}))
"""


@pytest.mark.evidence
@pytest.mark.parametrize(("size", "noise"), [(10_000, 10.0), (10_000, 1.0), (32_768, 1.0)])
def test_large_dictionaries(size: int, noise: float) -> None:
    """The exact one within 3 minutes and 4 GB; beyond 10,000 among 32 nearest. It holds what was planned, and not half
    of that or less."""
    words = [sys.executable, "-c", CODE, str(size), str(noise)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    print(size, noise, found)
    assert found["seconds"] < 180
    assert found["gigabytes"] < 4
    assert found["planned"] / 2 < found["held"] < 1.05 * found["planned"]
    assert found["mean"] > (0.65 if noise == 1 else 0.25)
