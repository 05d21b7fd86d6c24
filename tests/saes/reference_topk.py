"""The equations of TopK, BatchTopK, Matryoshka, HierarchicalTopK and OrtSAE for one member, written densely (see
`reference`)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tests.saes.reference import Terms, Weights, mean_square, preactivations, target, zero


def topk(
    p: Weights,
    x_BD: Tensor,
    k: int,
    dead_F: Tensor,
    auxk: int,
    auxk_coefficient: float,
    variance: float,
    target_BD: Tensor | None = None,
) -> Terms:
    """Gao et al. 2024: ReLU after the top k; the auxiliary term models the frozen residual with dead latents."""
    pre = preactivations(p, x_BD)
    f = torch.clamp(keep_largest(pre, k), min=0)
    x_hat = f @ p["W_dec"] + p["b_dec"]
    error = target(x_BD, target_BD) - x_hat
    auxiliary = auxk_coefficient * variance * residual_model(p, pre, error, dead_F, auxk)
    return Terms(mean_square(error), zero(x_BD), auxiliary, f, x_hat)


def batchtopk(
    p: Weights,
    x_BD: Tensor,
    k: int,
    dead_F: Tensor,
    auxk: int,
    auxk_coefficient: float,
    variance: float,
    target_BD: Tensor | None = None,
) -> Terms:
    """Bussmann et al. 2024 (2412.06410): the B k largest of ReLU(pre) over the batch, then as TopK."""
    pre = preactivations(p, x_BD)
    f = keep_largest_of_batch(torch.clamp(pre, min=0), k)
    x_hat = f @ p["W_dec"] + p["b_dec"]
    error = target(x_BD, target_BD) - x_hat
    auxiliary = auxk_coefficient * variance * residual_model(p, pre, error, dead_F, auxk)
    return Terms(mean_square(error), zero(x_BD), auxiliary, f, x_hat)


def matryoshka(
    p: Weights,
    x_BD: Tensor,
    k: int,
    prefixes: Sequence[int],
    dead_F: Tensor,
    auxk: int,
    auxk_coefficient: float,
    variance: float,
    target_BD: Tensor | None = None,
) -> Terms:
    """Bussmann et al. 2025 (2503.17547) on BatchTopK."""
    whole = batchtopk(p, x_BD, k, dead_F, auxk, auxk_coefficient, variance, target_BD)
    return with_prefixes(whole, p, x_BD, prefixes, target_BD)


def with_prefixes(
    whole: Terms, p: Weights, x_BD: Tensor, prefixes: Sequence[int], target_BD: Tensor | None = None
) -> Terms:
    """Bussmann et al. 2025 (2503.17547): the squared errors of nested prefixes, summed; `prefixes` ends in the width.

    `reconstruction` is the full width's error, and the other prefixes' stand in `auxiliary` beside what is there.
    """
    assert prefixes[-1] == len(p["W_enc"])
    auxiliary = whole.auxiliary
    for latents in prefixes[:-1]:
        x_hat = whole.f_BF[:, :latents] @ p["W_dec"][:latents] + p["b_dec"]
        auxiliary = auxiliary + mean_square(target(x_BD, target_BD) - x_hat)
    return Terms(whole.reconstruction, whole.sparsity, auxiliary, whole.f_BF, whole.x_hat_BD)


def hierarchical(
    p: Weights,
    x_BD: Tensor,
    ks: Sequence[int],
    dead_F: Tensor,
    auxk: int,
    auxk_coefficient: float,
    variance: float,
    target_BD: Tensor | None = None,
) -> Terms:
    """Balagansky et al. 2025 (2505.24473): TopK's squared error for every k, each from pre-activations anew, summed;
    the largest is `reconstruction`, the others stand in `auxiliary` beside its AuxK."""
    whole = topk(p, x_BD, max(ks), dead_F, auxk, auxk_coefficient, variance, target_BD)
    smaller = [topk(p, x_BD, k, dead_F, 0, 0.0, 0.0, target_BD).reconstruction for k in ks if k < max(ks)]
    auxiliary = whole.auxiliary + sum(smaller, zero(x_BD))
    return Terms(whole.reconstruction, whole.sparsity, auxiliary, whole.f_BF, whole.x_hat_BD)


def orthogonal(
    p: Weights,
    x_BD: Tensor,
    k: int,
    chunks: Sequence[Sequence[int]],
    coefficient: float,
    dead_F: Tensor,
    auxk: int,
    auxk_coefficient: float,
    variance: float,
    target_BD: Tensor | None = None,
) -> Terms:
    """Korznikov et al. 2025 (2509.22033) on BatchTopK, the latents parted into these chunks."""
    whole = batchtopk(p, x_BD, k, dead_F, auxk, auxk_coefficient, variance, target_BD)
    auxiliary = whole.auxiliary + coefficient * variance * sum(nearness(p, c) for c in chunks) / len(chunks)
    return Terms(whole.reconstruction, whole.sparsity, auxiliary, whole.f_BF, whole.x_hat_BD)


def nearness(p: Weights, chunk: Sequence[int]) -> Tensor:
    """The mean over a chunk's rows of the squared cosine with the nearest of the others, a row after the other."""
    total = zero(p["W_dec"])
    for i in chunk:
        own = p["W_dec"][i]
        others = [j for j in chunk if j != i]
        cosines = [own @ p["W_dec"][j] / (own.norm() * p["W_dec"][j].norm()) for j in others]
        total = total + torch.stack(cosines).max() ** 2
    return total / len(chunk)


def temporal(
    p: Weights,
    x_BD: Tensor,
    before_BD: Tensor,
    there_B: Tensor,
    k: int,
    high: int,
    coefficient: float,
    dead_F: Tensor,
    auxk: int,
    auxk_coefficient: float,
    variance: float,
) -> Terms:
    """Bhalla et al. 2025 (2511.05541): Matryoshka with two prefixes, and a token's high-level code is to be told from
    all others by that of the token before it, and the other way round."""
    whole = matryoshka(p, x_BD, k, [high, len(p["W_enc"])], dead_F, auxk, auxk_coefficient, variance)
    others_BF = keep_largest_of_batch(torch.clamp(preactivations(p, before_BD), min=0), k)
    own, other = (c[there_B][:, :high] for c in (whole.f_BF, others_BF))
    squares = (own**2).sum(1)[:, None] * (other**2).sum(1)
    similar = own @ other.t() / torch.where(squares > 0, squares, 1).sqrt()  # a code of 0 is like no other
    forth, back = (s.diagonal() - s.exp().sum(1).log() for s in (similar, similar.t()))
    auxiliary = whole.auxiliary - coefficient * variance * (forth.mean() + back.mean()) / 2
    return Terms(whole.reconstruction, whole.sparsity, auxiliary, whole.f_BF, whole.x_hat_BD)


def residual_model(p: Weights, pre_BF: Tensor, error_BD: Tensor, dead_F: Tensor, auxk: int) -> Tensor:
    """AuxK without its factors: how badly the dead latents with the largest pre-activations model the residual."""
    if auxk == 0 or not bool(dead_F.any()):
        return zero(error_BD)
    e = error_BD.detach()
    # Living latents out of the race for the largest: below every other number, and ReLU makes them 0.
    z = torch.clamp(keep_largest(torch.where(dead_F, pre_BF, torch.full_like(pre_BF, -1e9)), auxk), min=0)
    return mean_square(e - z @ p["W_dec"]) / mean_square(e - e.mean(0))


def keep_largest(values_BF: Tensor, k: int) -> Tensor:
    """The k largest of each row, 0 elsewhere."""
    k = min(k, values_BF.shape[1])
    order = values_BF.detach().argsort(dim=1, descending=True)[:, :k]
    return values_BF * one_hot(order, values_BF.shape[1]).sum(1).to(values_BF.dtype)


def keep_largest_of_batch(values_BF: Tensor, k: int) -> Tensor:
    """The B k largest of all, and whatever equals the smallest of them; 0 elsewhere."""
    count = min(len(values_BF) * k, values_BF.numel())
    cut = values_BF.detach().flatten().sort(descending=True).values[count - 1]
    return values_BF * (values_BF.detach() >= cut).to(values_BF.dtype)


def inference(p: Weights, x_BD: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Codes and reconstructions of BatchTopK and Matryoshka where a token does not see its batch."""
    pre = preactivations(p, x_BD)
    f = pre * (pre > threshold)
    return f, f @ p["W_dec"] + p["b_dec"]


def smallest_kept(f_BF: Tensor) -> float:
    """What a batch adds to the running mean of the inference threshold."""
    return f_BF[f_BF > 0].min().item()


def running_mean(f_batches: Sequence[Tensor]) -> float:
    """The inference threshold after these batches."""
    return sum(smallest_kept(f) for f in f_batches) / len(f_batches)


def fixed_prefixes(width: int, groups: int) -> list[int]:
    """The nested prefixes of groups of 2^-G, ..., 2^-2 of the width and the rest, where that divides."""
    sizes = [width // 2**power for power in range(groups, 1, -1)]
    return [sum(sizes[:group]) for group in range(1, groups)] + [width]
