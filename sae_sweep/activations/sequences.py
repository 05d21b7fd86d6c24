"""The other view of a block: its rows as the model read them, for objectives that run the model on from a site."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.suffix import CleanPass, Suffix


@dataclass(frozen=True)
class Sequences:
    """Rows in the stream's order, and what a clean pass of the model made of them."""

    clean: CleanPass
    """On the model's device."""
    counted_RT: Tensor
    """[R, T] bool, on the CPU: positions that count, outliers among them."""
    target_RT: Tensor
    """[R, T] bool, on the CPU: those of them whose next token the model is to predict."""
    inliers: Mapping[str, Tensor] = field(default_factory=dict)
    """[R, T] bool by hook, on the CPU: where activations are not too long to count; of hooks where some are."""

    def counted(self, hook: str) -> Tensor:
        """[R, T] bool, on the CPU: where activations of a hook are replaced."""
        return self.counted_RT & self.inliers[hook] if hook in self.inliers else self.counted_RT

    def targets(self, hook: str) -> Tensor:
        """[R, T] bool, on the CPU: where predictions are compared, of those that count at a hook."""
        return self.target_RT & self.inliers[hook] if hook in self.inliers else self.target_RT

    def __len__(self) -> int:
        return len(self.counted_RT)

    def counting(self, hook: str) -> Tensor | None:
        """[N] int64, on the CPU: the rows in which an activation of a hook counts; None where that is each."""
        counts_R = self.counted(hook).any(1)
        return None if bool(counts_R.all()) else counts_R.nonzero().squeeze(1)

    def rows(self, part: slice | Tensor) -> "Sequences":
        """Some of the rows: neighbours, or those at some places."""
        activations = {hook: activation_RTd[part] for hook, activation_RTd in self.clean.activations.items()}
        clean = CleanPass(self.clean.tokens_RT[part], activations, self.clean.final_RTD[part])
        inliers = {hook: inlier_RT[part] for hook, inlier_RT in self.inliers.items()}
        return Sequences(clean, self.counted_RT[part], self.target_RT[part], inliers)


class WholePasses:
    """Harvests by whole passes of the model, and keeps what they leave: activations and final hidden states."""

    def __init__(self, suffix: Suffix) -> None:
        self._suffix = suffix
        self._kept: list[CleanPass] = []

    def __call__(self, model: LanguageModel, tokens_RT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        """The activation [R, T, d] of each hook, as `model.harvest.harvest` gives it."""
        clean = self._suffix.clean(tokens_RT)
        self._kept.append(clean)
        return {hook: clean.activations[hook] for hook in hooks}

    def forget(self) -> None:
        """Let go of what was kept, as of a block for which memory did not last."""
        self._kept = []

    def take(self) -> CleanPass:
        """What was kept since the last time, as one pass."""
        passes, self._kept = self._kept, []
        activations = {hook: torch.cat([p.activations[hook] for p in passes]) for hook in passes[0].activations}
        tokens_RT = torch.cat([p.tokens_RT for p in passes])
        return CleanPass(tokens_RT, activations, torch.cat([p.final_RTD for p in passes]))
