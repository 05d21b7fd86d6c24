"""What devices are said to do, for plans of machines that are elsewhere: operations a second, dense, by number format,
and memory, from their makers' data sheets. No torch.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from sae_sweep.config.schema import MemberConfig

SHARE = 0.4
"""Of its peak that a device gets done; `launcher.device_flops` says another rate."""


@dataclass(frozen=True)
class Device:
    """One GPU."""

    name: str
    half: float
    """Operations a second at its peak in bfloat16, or float16 where it has none."""
    single: float
    """The same in float32."""
    memory: float
    """Bytes."""

    def flops(self, dtype: str) -> float:
        """Operations a second that it gets done with a model of this dtype."""
        return SHARE * (self.half if dtype in ("bfloat16", "float16") else self.single)


# NVIDIA's data sheets and whitepapers, whose figures with sparsity are twice these: T4; GeForce RTX 4090 (Ada, 165.2
# with float32 sums); L40S (362.05); A100 80 GB (us-nvidia-1758950-r4); H100 SXM5 (989.4 and 66.9); H200 SXM, the same
# chip with more memory.
DEVICES = (
    Device("T4", 65e12, 8.1e12, 16e9),
    Device("RTX 4090", 165e12, 82.6e12, 24e9),
    Device("L40S", 362e12, 91.6e12, 48e9),
    Device("A100", 312e12, 19.5e12, 80e9),
    Device("H100", 989e12, 67e12, 80e9),
    Device("H200", 989e12, 67e12, 141e9),
)
GPU = Path("/dev/nvidiactl")
"""There is one where this file is: planning loads no torch to ask."""


def gpu_count() -> int:
    """How many this process may use; 1 where nothing says that there are more."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = GPU.parent.glob("nvidia[0-9]*") if said is None else filter(str.strip, said.split(","))
    return max(1, len(list(found)))


def on_gpu(config: MemberConfig) -> bool:
    """Whether members will be on one, as far as that can be told without torch."""
    return config.model.device.startswith("cuda") or (config.model.device == "auto" and GPU.exists())
