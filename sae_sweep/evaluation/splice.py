"""What the language model loses when a site's activation is replaced: cross-entropy and KL divergence, in nats.

Every pass (clean, zero, mean, one per member) is measured at the same target positions, by tiles (`tiles.py`):
a vocabulary of 256k needs no more memory than one of 4k.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from sae_sweep.evaluation.jackknife import ratio_standard_error
from sae_sweep.evaluation.metrics import undefined_without_a_model
from sae_sweep.evaluation.tiles import losses_of, positions_of
from sae_sweep.host.cores import side_by_side
from sae_sweep.kernels.sparse import add_at
from sae_sweep.model.head import head_of
from sae_sweep.model.language_model import LanguageModel


class PassLosses:
    """Sums per held-out sequence, in float64: one pass's cross-entropy, and its KL from the clean pass."""

    def __init__(self, sequences: int, device: torch.device):
        self.ce_R = torch.zeros(sequences, dtype=torch.float64, device=device)
        self.kl_R = torch.zeros(sequences, dtype=torch.float64, device=device)

    def add(self, sequence_N: Tensor, ce_N: Tensor, kl_N: Tensor) -> None:
        """Add tokens' cross-entropy and KL, in nats, to their sequences' sums."""
        add_at(self.ce_R, sequence_N, ce_N)
        add_at(self.kl_R, sequence_N, kl_N)


def average(passes: Sequence[PassLosses]) -> PassLosses:
    """Of several passes, per sequence."""
    if len(passes) == 1:
        return passes[0]
    made = PassLosses(len(passes[0].ce_R), passes[0].ce_R.device)
    made.ce_R = torch.stack([one.ce_R for one in passes]).mean(0)
    made.kl_R = torch.stack([one.kl_R for one in passes]).mean(0)
    return made


def accumulate(
    model: LanguageModel,
    clean_ND: Tensor,
    passes: Mapping[str, Tensor],
    target_N: Tensor,
    sequence_N: Tensor,
    sums: Mapping[str, PassLosses],
    done: Callable[[float], None] = lambda part: None,
) -> None:
    """Add N target positions. `passes` are final hidden states [N, D] by the names of `sums`, "clean" left out; `done`
    is told each part of them that is measured."""
    found = measured(model, clean_ND, list(passes.values()), target_N, done)
    for name, ce_N, kl_N in zip(("clean", *passes), *found, strict=True):
        sums[name].add(sequence_N, ce_N, kl_N)


def measured(
    model: LanguageModel,
    clean_ND: Tensor,
    passes: Sequence[Tensor],
    target_N: Tensor,
    done: Callable[[float], None] = lambda part: None,
) -> Tensor:
    """[2, 1 + passes, N] float64: CE, and KL from the clean pass, of that and of others with these final hidden states
    [N, D]; in nats."""
    # Made here: small results of each part, between the large temporaries of the next, would break memory up.
    found = torch.empty(2, 1 + len(passes), len(target_N), dtype=torch.float64, device=model.device)
    hidden = (clean_ND, *passes)

    with head_of(model) as head:

        def measure(part: slice) -> None:
            found[:, :, part] = losses_of(head, [hidden_ND[part] for hidden_ND in hidden], target_N[part])

        step = positions_of(head, model.device)
        parts = [slice(start, start + step) for start in range(0, len(target_N), step)]
        for _ in side_by_side(measure, parts, model.device):
            done(1 / len(parts))
    return found


def splice_metrics(
    clean: PassLosses, zero: PassLosses, mean: PassLosses, sae: PassLosses, targets_R: Tensor
) -> dict[str, float | None]:
    """Ratios of means, never clipped. ce_recovered is about zero ablation, ce_recovered_mean about mean ablation.

    All None where no position has a target.
    """
    targets = targets_R.sum().item()
    if targets == 0:
        return undefined_without_a_model()
    ce_clean, ce_zero, ce_mean, ce_sae = (one.ce_R.sum().item() / targets for one in (clean, zero, mean, sae))
    return {
        "ce_clean": ce_clean,
        "ce_sae": ce_sae,
        "ce_zero": ce_zero,
        "ce_mean": ce_mean,
        "ce_delta": ce_sae - ce_clean,
        "ce_recovered": _recovered(ce_zero, ce_sae, ce_clean),
        "ce_recovered_se": ratio_standard_error(zero.ce_R - sae.ce_R, zero.ce_R - clean.ce_R),
        "ce_recovered_mean": _recovered(ce_mean, ce_sae, ce_clean),
        "kl": sae.kl_R.sum().item() / targets,
        "kl_zero": zero.kl_R.sum().item() / targets,
    }


def _recovered(ce_ablated: float, ce_sae: float, ce_clean: float) -> float | None:
    return (ce_ablated - ce_sae) / (ce_ablated - ce_clean) if ce_ablated != ce_clean else None
