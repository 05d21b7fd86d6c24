"""What is kept with a member of the first block of its stream, on which training was calibrated: who judges the member
again need not have the model read that block again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_sweep.folder.files import replacing
from sae_sweep.folder.names import FIRST_BLOCK

_MEAN, _LARGEST = "mean ", "largest_norm "
"""What a hook's name follows in the file."""


@dataclass(frozen=True)
class FirstBlock:
    """Of some sites, by hook."""

    means: Mapping[str, Tensor] = field(default_factory=dict)
    """The mean activation [d], in float64, of sites that are spliced: what mean ablation puts in place."""
    largest_norms: Mapping[str, float] = field(default_factory=dict)
    """The norm above which an activation does not count (`data.max_norm_ratio`); of no site where all count."""

    def of(self, hooks: Iterable[str]) -> "FirstBlock":
        """The same, of these sites alone."""
        wanted = set(hooks)
        return FirstBlock(
            {hook: mean_D for hook, mean_D in self.means.items() if hook in wanted},
            {hook: norm for hook, norm in self.largest_norms.items() if hook in wanted},
        )


def write_first_block(folder: Path, kept: FirstBlock) -> None:
    """Write it beside a member's metrics; nothing where there is nothing to keep."""
    tensors = {_MEAN + hook: mean_D.cpu().contiguous() for hook, mean_D in kept.means.items()}
    tensors |= {_LARGEST + hook: torch.tensor(norm, dtype=torch.float64) for hook, norm in kept.largest_norms.items()}
    if tensors:
        with replacing(folder / FIRST_BLOCK) as temporary:
            save_file(tensors, temporary)


def read_first_block(folders: Iterable[Path]) -> FirstBlock:
    """That of members of one stream, of each site what the first says that has it. It is of fewer sites, or of none,
    where older versions trained them or a file is damaged: their block is there to be read again."""
    means, largest = dict[str, Tensor](), dict[str, float]()
    for folder in folders:
        try:
            found = load_file(folder / FIRST_BLOCK)
        except (OSError, SafetensorError):
            continue
        for name, tensor in found.items():
            if tensor.dtype != torch.float64 or not bool(tensor.isfinite().all()):
                continue
            if name.startswith(_MEAN) and tensor.ndim == 1:
                means.setdefault(name.removeprefix(_MEAN), tensor)
            elif name.startswith(_LARGEST) and tensor.numel() == 1 and tensor.item() > 0:
                largest.setdefault(name.removeprefix(_LARGEST), tensor.item())
    return FirstBlock(means, largest)
