"""What the slow proofs of survival found, in tests/evidence/survival.json: each proof writes its own entry."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from sae_sweep.folder.files import write_json_atomic

OUT = Path(__file__).parents[1] / "evidence" / "survival.json"


def machine() -> dict[str, Any]:
    """What was found depends on it."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
    }


def record(name: str, found: Any) -> None:
    """Write an entry beside those that are there."""
    entries = json.loads(OUT.read_text()) if OUT.is_file() else {}
    write_json_atomic(OUT, {**entries, name: found, "machine": machine()})
