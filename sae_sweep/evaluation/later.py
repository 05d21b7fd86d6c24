"""What a reconstruction does to activations after its site: those of the spliced model, against clean ones.

Braun et al. 2024 (arXiv 2405.12241, section 3.4) compare SAEs of different objectives by it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from sae_sweep.evaluation.reconstruction import Reconstruction


class LaterSites:
    """Sums of one SAE at some hooks after its own, over counted positions."""

    def __init__(self, widths: Mapping[str, int], device: torch.device) -> None:
        """`widths` are the numbers per position by hook."""
        self._found = {hook: Reconstruction(d, device) for hook, d in widths.items()}

    def update(self, clean: Mapping[str, Tensor], spliced: Mapping[str, Tensor], counted_RT: Tensor) -> None:
        """Activations [R, T, d] by hook; spliced ones those of one model."""
        for hook, spliced_RTd in spliced.items():
            self._found[hook].update(clean[hook][counted_RT], spliced_RTd[counted_RT])

    def metrics(self) -> dict[str, float | None]:
        """later_fvu: the unexplained variance, averaged over hooks; None without any."""
        found = [sums.metrics()["fvu"] for sums in self._found.values()]
        known = [fvu for fvu in found if fvu is not None]
        return {"later_fvu": sum(known) / len(known) if known else None}
