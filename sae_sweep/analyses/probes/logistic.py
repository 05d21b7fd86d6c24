"""Linear probes: logistic regression on standardised features, one for each label against all others.

Products are torch's: numpy's and scipy's wake every core for each of them, however small they are, and keep it awake.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

PENALTY = 1.0
"""Half of it times the squared weights is added to the summed loss: scikit-learn's C = 1."""
NARROW = 64
"""Features up to which Newton's method is the faster one: a step solves as many equations."""
STEPS = 200
FLAT = 1e-5
"""The largest derivative that is taken for none."""
DECIMALS = 4
"""Of a score, in nats: what differs by less differs by how far the fit came, and is a tie."""


def standardised(train_NF: Tensor, test_NF: Tensor) -> tuple[Tensor, Tensor]:
    """Both about the mean of the first, in units of its standard deviation; what never varies there is 0."""
    mean_F, std_F = train_NF.mean(0), train_NF.std(0, correction=0)
    scale_F = torch.where(std_F > 0, 1 / std_F, 0.0)
    return (train_NF - mean_F) * scale_F, (test_NF - mean_F) * scale_F


def fitted(x_NF: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
    """The weights and the intercept, which is not penalised, that labels 0 and 1 are most likely with; float64."""
    ones_N1 = x_NF.new_ones(len(x_NF), 1)
    x_NG = torch.cat([x_NF, ones_N1], dim=1)
    penalty_G = torch.full((x_NG.shape[1],), PENALTY, dtype=x_NF.dtype)
    penalty_G[-1] = 0
    w_G = (_newton if x_NF.shape[1] <= NARROW else _quasi_newton)(x_NG, y_N, penalty_G)
    return w_G[:-1], w_G[-1]


def _loss(w_G: Tensor, x_NG: Tensor, y_N: Tensor, penalty_G: Tensor) -> Tensor:
    return softplus((1 - 2 * y_N) * torch.mv(x_NG, w_G)).sum() + (penalty_G * w_G.square()).sum() / 2


def _newton(x_NG: Tensor, y_N: Tensor, penalty_G: Tensor) -> Tensor:
    w_G = torch.zeros_like(penalty_G)
    best = _loss(w_G, x_NG, y_N, penalty_G)
    for _ in range(STEPS):
        p_N = torch.sigmoid(torch.mv(x_NG, w_G))
        slope_G = torch.mv(x_NG.T, p_N - y_N) + penalty_G * w_G
        if slope_G.abs().max() < FLAT:
            break
        curvature_GG = x_NG.T @ ((p_N * (1 - p_N))[:, None] * x_NG) + torch.diag(penalty_G)
        step_G = torch.linalg.lstsq(curvature_GG, slope_G[:, None]).solution[:, 0]
        while (loss := _loss(w_G - step_G, x_NG, y_N, penalty_G)) > best and step_G.abs().max() > FLAT:
            step_G = step_G / 2  # too far
        w_G, best = w_G - step_G, torch.minimum(loss, best)
    return w_G


@torch.enable_grad()
def _quasi_newton(x_NG: Tensor, y_N: Tensor, penalty_G: Tensor) -> Tensor:
    w_G = torch.zeros_like(penalty_G, requires_grad=True)
    steps = torch.optim.LBFGS(
        [w_G], max_iter=STEPS, tolerance_grad=FLAT, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        steps.zero_grad()
        loss = _loss(w_G, x_NG, y_N, penalty_G)
        loss.backward()
        return loss

    steps.step(closure)
    return w_G.detach()


def auc(score_N: Tensor, y_N: Tensor) -> float:
    """How often one with label 1 has a higher score than one with label 0; ties are half."""
    ordered_P = score_N[y_N == 0].sort().values
    one_N = score_N[y_N == 1]
    below, up_to = (torch.searchsorted(ordered_P, one_N, right=right).double().sum() for right in (False, True))
    return float((below + up_to) / 2 / (len(one_N) * len(ordered_P)))


def probe_auc(train_NF: Tensor, y_N: Tensor, test_NF: Tensor, z_N: Tensor, k: int | None) -> float:
    """Of a probe on the k features whose means differ most between the labels in training, or on all."""
    if k is not None and k < train_NF.shape[1]:
        apart_F = (train_NF[y_N == 1].mean(0) - train_NF[y_N == 0].mean(0)).abs()
        chosen = apart_F.sort(descending=True, stable=True).indices[:k]
        train_NF, test_NF = train_NF[:, chosen], test_NF[:, chosen]
    train_NF, test_NF = standardised(train_NF, test_NF)
    w_F, intercept = fitted(train_NF, y_N)
    return auc((torch.mv(test_NF, w_F) + intercept).round(decimals=DECIMALS), z_N)
