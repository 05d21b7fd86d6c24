"""`sae-sweep` with its peak memory told, for `scripts/bench/scaling.py`:

    python scripts/bench/measured_command.py PEAK.json [what sae-sweep takes ...]

The command and its exit code are unchanged. PEAK.json gets the bytes that it held at most beyond what its process held
once the libraries were loaded: resident memory, or on CUDA what torch had allocated on the device.
"""

import json
import resource
import sys
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"


def resident(field: str) -> int | None:
    """Bytes of a line of /proc/self/status, VmRSS or VmHWM; None where there is none."""
    lines = STATUS.read_text(encoding="utf-8").splitlines() if STATUS.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def reset_peak() -> None:
    """Let the peak begin at what is resident now, where the system can."""
    try:
        CLEAR.write_text(RESET_PEAK, encoding="utf-8")
    except OSError as error:
        print(f"the peak is that of the whole process, libraries loading too: {error}", file=sys.stderr)


def peak() -> int:
    """The most that was resident since `reset_peak`, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resident("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> int:
    from sae_sweep import cli, process

    process.tune()  # as cli.main does, but here torch is imported before that
    # What the command would load on the way: libraries are not what a sweep costs.
    import torch
    import transformers  # noqa: F401

    from sae_sweep.reporting import report  # noqa: F401
    from sae_sweep.training import opening  # noqa: F401

    torch.ones(256, 256) @ torch.ones(256, 256)  # threads, and the library of matrix products
    reset_peak()
    before = resident("VmRSS") or peak()
    code = cli.main(sys.argv[2:])
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    held = torch.cuda.max_memory_allocated() if used else peak() - before
    Path(sys.argv[1]).write_text(json.dumps({"peak_bytes": held, "on": "cuda" if used else "cpu"}), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
