"""Linear probes: logistic regression on standardised features, one for each label against all others."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PENALTY = 1.0
"""Half of it times the squared weights is added to the summed loss: scikit-learn's C = 1."""
STEPS = 200


def standardised(train_NF: Array, test_NF: Array) -> tuple[Array, Array]:
    """Both about the mean of the first, in units of its standard deviation; what never varies there is 0."""
    mean_F, std_F = train_NF.mean(0), train_NF.std(0)
    scale_F = np.where(std_F > 0, 1 / np.where(std_F > 0, std_F, 1), 0)
    return (train_NF - mean_F) * scale_F, (test_NF - mean_F) * scale_F


def fitted(x_NF: Array, y_N: Array) -> tuple[Array, float]:
    """The weights and the intercept, which is not penalised, that labels 0 and 1 are most likely with."""
    from scipy.optimize import minimize

    sign_N = 2 * y_N - 1

    def loss(w_F1: Array) -> tuple[float, Array]:
        margin_N = sign_N * (x_NF @ w_F1[:-1] + w_F1[-1])
        pull_N = -sign_N * np.exp(-np.logaddexp(0, margin_N))
        gradient = np.append(x_NF.T @ pull_N + PENALTY * w_F1[:-1], pull_N.sum())
        return float(np.logaddexp(0, -margin_N).sum() + PENALTY / 2 * (w_F1[:-1] ** 2).sum()), gradient

    found = minimize(loss, np.zeros(x_NF.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return found.x[:-1], float(found.x[-1])


def auc(score_N: Array, y_N: Array) -> float:
    """How often one with label 1 has a higher score than one with label 0; ties are half."""
    from scipy.stats import rankdata

    positive = int(y_N.sum())
    negative = len(y_N) - positive
    rank_N: Array = rankdata(score_N)
    return float((rank_N[y_N == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))


def probe_auc(train_NF: Array, y_N: Array, test_NF: Array, z_N: Array, k: int | None) -> float:
    """Of a probe on the k features whose means differ most between the labels in training, or on all."""
    if k is not None and k < train_NF.shape[1]:
        apart_F = np.abs(train_NF[y_N == 1].mean(0) - train_NF[y_N == 0].mean(0))
        chosen = np.sort(np.argsort(-apart_F, kind="stable")[:k])
        train_NF, test_NF = train_NF[:, chosen], test_NF[:, chosen]
    train_NF, test_NF = standardised(train_NF, test_NF)
    w_F, intercept = fitted(train_NF, y_N)
    return auc(test_NF @ w_F + intercept, z_N)
