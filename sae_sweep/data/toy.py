"""Synthetic activations whose true latents are known, as in Sharkey, Braun and Millidge 2022.

The true latents are random directions in fewer dimensions than there are latents. A row is the sum of its few active
ones, each times a strength drawn from U(0, 1), plus noise. The i-th is active decay^i times as often as the first:

    uncorrelated: p_i = active / latents * decay^i, each latent for itself; a row may have none
    correlated:   z ~ N(0, S), q_i = Phi(z_i) decay^i, p = q * active / sum(q), and a row with none active gets
                  one that is chosen uniformly, with strength 1

S is a random symmetric matrix with entries in (0, 1) whose diagonal is raised until it is positive definite, as in
the paper's code. That code draws z once for a whole batch; here each row has its own, so that rows are independent
and the latents of a row follow a Gaussian copula. With `rank` half of each z is made of so many factors instead, which
its latent has a random direction among.

What SynthSAEBench adds (Chanin and Garriga-Alonso 2026): with `zipf` frequencies fall as i^-zipf, their sum `active`.
With `roots` the others are in trees, in order: the first children are those of the first root. A child is active where
its parent is, with what makes its frequency its own; if `exclusive`, one of a parent's active children stays.

G true latents; the rest of the legend is the package's.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_sweep.config.schema import ToyConfig
from sae_sweep.data.kinds import Part
from sae_sweep.data.trees import Trees

# What random numbers are for, so that no two draw the same; rows.py has 1 and 2.
_TRUTH, _CODES, _NOISE = 3, 4, 5
_PARTS = {"training": 0, "heldout": 1}
_RAISED = 1.001  # times the lowest eigenvalue where that is negative
_SHARED = 0.5
"""Of the variance of z, what factors make of it."""
_CODE_ELEMENTS = 2**22
"""Codes drawn at a time, rows x true latents."""


def _weights(config: ToyConfig) -> Tensor:
    """[G] float64: how often each true latent is active, as a multiple of the mean in the uncorrelated kind."""
    place_G = torch.arange(config.latents, dtype=torch.float64)
    if config.zipf is None:
        return config.decay**place_G
    weight_G = (place_G + 1) ** -config.zipf
    return weight_G / weight_G.mean()


class ToyData:
    """Rows of synthetic activations, the same for the same config, seed, part and block whenever they are drawn."""

    def __init__(self, config: ToyConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        random = np.random.default_rng((_TRUTH, seed))
        directions_GD = torch.from_numpy(random.standard_normal((config.latents, config.dimensions)))
        self.truth_GD = (directions_GD / directions_GD.norm(dim=1, keepdim=True)).float()
        """[G, D] float32: the directions of the true latents, unit rows."""
        self._weight_G = _weights(config)
        self._trees = None if config.roots is None else Trees(config.latents, config.roots, config.children)
        self._root_GG: Tensor | None = None
        if config.rank is not None:
            loadings_GK = torch.from_numpy(random.standard_normal((config.latents, config.rank)))
            self._root_GG = (loadings_GK / loadings_GK.norm(dim=1, keepdim=True)).float() * _SHARED**0.5
        elif config.correlated:
            covariance_GG = raised(random.random((config.latents, config.latents)))
            self._root_GG = torch.linalg.cholesky(covariance_GG).float()

    def codes(self, part: Part, block: int, rows: int) -> Iterator[Tensor]:
        """The strengths [b, G] of the true latents in a block of so many rows, some rows at a time, in order."""
        random = self._random(_CODES, part, block)
        step = max(1, _CODE_ELEMENTS // self._config.latents)
        for start in range(0, rows, step):
            shape = (min(step, rows - start), self._config.latents)
            probability_bG = self._probability(random, shape)
            active_bG = self._active(random, probability_bG, shape)
            codes_bG = active_bG.float()
            codes_bG[active_bG] = torch.from_numpy(random.random(int(active_bG.sum()), dtype=np.float32))
            if self._config.correlated:
                empty_E = (~active_bG.any(1)).nonzero().squeeze(1)
                lone = self._config.roots or shape[1]
                codes_bG[empty_E, torch.from_numpy(random.integers(lone, size=len(empty_E)))] = 1.0
            yield codes_bG

    def activations(self, part: Part, block: int, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The activations [b, D] of a block, and their codes [b, G], some rows at a time, in order."""
        random = self._random(_NOISE, part, block)
        for codes_bG in self.codes(part, block, rows):
            x_bD = codes_bG @ self.truth_GD
            if self._config.noise > 0:
                x_bD += self._config.noise * torch.from_numpy(random.standard_normal(x_bD.shape, dtype=np.float32))
            yield x_bD, codes_bG

    def _probability(self, random: np.random.Generator, shape: tuple[int, int]) -> Tensor:
        """[b, G] or [G]: how likely each true latent is to be active in a row."""
        mean = self._config.active / self._config.latents
        if self._root_GG is None:
            return (mean * self._weight_G).float()
        width = self._root_GG.shape[1]
        z_bG = torch.from_numpy(random.standard_normal((shape[0], width), dtype=np.float32)) @ self._root_GG.T
        if self._config.rank is not None:
            z_bG += (1 - _SHARED) ** 0.5 * torch.from_numpy(random.standard_normal(shape, dtype=np.float32))
        q_bG = torch.special.ndtr(z_bG) * self._weight_G.float()
        return q_bG * (mean / q_bG.mean(1, keepdim=True))

    def _active(self, random: np.random.Generator, probability: Tensor, shape: tuple[int, int]) -> Tensor:
        """[b, G] bool: which true latents are active, given how likely each is by itself."""
        uniform_bG = torch.from_numpy(random.random(shape, dtype=np.float32))
        if self._trees is None:
            return uniform_bG < probability
        active_bG = uniform_bG < self._trees.given_parents(probability.clamp(max=1))
        chosen_bG = torch.from_numpy(random.random(shape, dtype=np.float32)) if self._config.exclusive else None
        return self._trees.held(active_bG, chosen_bG)

    def _random(self, what: int, part: Part, block: int) -> np.random.Generator:
        return np.random.default_rng((what, self._seed, _PARTS[part], block))


def raised(uniform_GG: npt.NDArray[np.float64]) -> Tensor:
    """The covariance [G, G] float64 of a matrix drawn from U(0, 1): made symmetric, and its diagonal raised until it
    is positive definite."""
    symmetric_GG = torch.from_numpy(uniform_GG + uniform_GG.T) / 2
    lowest = torch.linalg.eigvalsh(symmetric_GG)[0].clamp(max=0)
    return symmetric_GG - _RAISED * lowest * torch.eye(len(symmetric_GG), dtype=torch.float64)
