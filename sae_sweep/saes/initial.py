"""First parameters: directions, encoder rows and the decoder bias, as `sae.*_init` asks."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sae_sweep.saes.fitted import centroids, drawn_rows, principal_rows
from sae_sweep.saes.spaces import AUTOENCODER, Spaces

MEDIAN_STEPS = 200
MEDIAN_TOLERANCE = 1e-6
"""Of the inputs' mean distance from the median: when a step of the iteration counts as nothing."""

MATCHED_INPUTS = 1_024
"""Inputs on which the size of first reconstructions is measured."""
MATCHED_ELEMENTS = 2**24
"""Their codes held at a time, inputs x latents."""


@dataclass(frozen=True)
class Start:
    """What initialisation may look at."""

    inputs_ND: Tensor
    """Inputs of one block as the members see them (scaled, centred): float32, on the CPU."""
    mean_D: Tensor
    """The targets' mean over the whole block."""
    spaces: Spaces = AUTOENCODER
    outputs_ND: Tensor | None = None
    """What is to be reconstructed of each; None is the inputs."""

    @property
    def targets_ND(self) -> Tensor:
        """What is reconstructed: the inputs, but for transcoders."""
        return self.inputs_ND if self.outputs_ND is None else self.outputs_ND

    def centred(self, b_dec: Tensor) -> Tensor:
        """[N, D]: the inputs of an encoder with a pre-encoder bias."""
        return self.spaces.centred(self.inputs_ND, b_dec)

    @cached_property
    def geometric_median_D(self) -> Tensor:
        """The point with the least summed distance to the targets (Weiszfeld's iteration, in float64)."""
        x_ND = self.targets_ND.double()
        median_D = x_ND.mean(0)
        for _ in range(MEDIAN_STEPS):
            distance_N = (x_ND - median_D).norm(dim=1)
            weight_N = 1 / distance_N.clamp(min=1e-12 * float(distance_N.mean()) + 1e-300)
            moved_D = weight_N @ x_ND / weight_N.sum()
            step, median_D = (moved_D - median_D).norm(), moved_D
            if step <= MEDIAN_TOLERANCE * distance_N.mean():
                break
        return median_D.float()

    def b_dec(self, how: str) -> Tensor:
        """[D]: the first decoder bias, `sae.b_dec_init`."""
        match how:
            case "mean":
                return self.mean_D.clone()
            case "geometric_median":
                return self.geometric_median_D.clone()
        return torch.zeros_like(self.mean_D)

    def decoder(self, how: str, width: int, generator: torch.Generator) -> Tensor:
        """[F, D]: the first decoder rows at unit norm, `sae.decoder_init`.

        data: targets drawn without replacement, about their mean; random rows where there are too few (Sharkey et
        al. 2022, "Taking features out of superposition", comments). pca: their components, those of the largest
        variance first, each up and down. kmeans: centroids of them about their mean. covariance: draws of a normal
        distribution of their covariance.
        """
        if how == "pca":
            return principal_rows(self.targets_ND - self.mean_D, width)
        rows_FD = random_unit_rows(width, len(self.mean_D), generator)
        if how == "kmeans":
            centroids_KD = centroids(self.targets_ND - self.mean_D, width, generator)
            rows_FD[: len(centroids_KD)] = unit_rows(centroids_KD)
        if how == "covariance":
            drawn_FD = drawn_rows(self.targets_ND - self.mean_D, width, generator)
            rows_FD = torch.where(drawn_FD.norm(dim=1, keepdim=True) > 0, unit_rows(drawn_FD), rows_FD)
        if how == "data":
            about_ND = self.targets_ND - self.mean_D
            about_ND = about_ND[about_ND.norm(dim=1) > 0]
            drawn = torch.randperm(len(about_ND), generator=generator)[:width]
            rows_FD[: len(drawn)] = unit_rows(about_ND[drawn])
        return rows_FD

    def encoder(
        self, how: str, W_dec: Tensor, b_dec: Tensor, generator: torch.Generator, k: int | None = None
    ) -> Tensor:
        """[F, D]: the first encoder rows, `sae.encoder_init`. `k` where only so many latents fire on a token.

        F random unit rows d wide, half of them firing, reconstruct F / 2d times a centred input. Papers that start
        from the bare transpose spend their first steps shrinking that; short runs never recover. scaled_transpose
        divides by it; matched_transpose by what it is on some inputs (Gao et al. 2024, appendix A.1).
        A transcoder has no transpose to start from: random rows of the decoder rows' norms take its place (Dunefsky
        et al. 2024 draw both matrices at random), and are scaled alike.
        """
        width, d = len(W_dec), self.inputs_ND.shape[1]
        random_FD = None
        if how == "random" or not self.spaces.same:
            random_FD = random_unit_rows(width, d, generator) * W_dec.norm(dim=1, keepdim=True)
        rows_FD = W_dec if random_FD is None else random_FD
        match how:
            case "matched_transpose":
                some = slice(MATCHED_INPUTS)
                x_ND, y_ND = self.spaces.centred(self.inputs_ND[some], b_dec), self.targets_ND[some] - b_dec
                return matching(x_ND, rows_FD, k, W_dec, y_ND) * rows_FD
            case "scaled_transpose":
                return min(1.0, 2 * d / width) * rows_FD
            case "divided_transpose":
                return d / width * rows_FD
        return rows_FD.clone()


def matching(x_ND: Tensor, rows_FD: Tensor, k: int | None, W_dec: Tensor, y_ND: Tensor) -> float:
    """What makes W_dec^T ReLU(c W x), of each token's k largest or of all, as large as y, root mean square."""
    size2 = 0.0
    for x_BD in x_ND.split(max(1, MATCHED_ELEMENTS // len(rows_FD))):
        z_BF = (x_BD @ rows_FD.T).relu_()
        if k is not None:
            top = z_BF.topk(k, dim=1)
            z_BF = torch.zeros_like(z_BF).scatter_(1, top.indices, top.values)
        size2 += float((z_BF @ W_dec).square().sum())
    return (float(y_ND.square().sum()) / size2) ** 0.5 if size2 > 0 else 1.0


def unit_rows(rows_FD: Tensor) -> Tensor:
    """The rows, each divided by its norm."""
    return rows_FD / rows_FD.norm(dim=1, keepdim=True)


def random_unit_rows(width: int, d: int, generator: torch.Generator) -> Tensor:
    """Rows of norm 1 and random directions, [width, d]."""
    return unit_rows(torch.randn(width, d, generator=generator))
