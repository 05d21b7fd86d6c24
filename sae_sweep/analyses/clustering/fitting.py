"""What is fitted at one site, on the first tokens that its members train on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.analyses.clustering.components import Components, components, residual_centroids
from sae_sweep.analyses.clustering.naming import names, strongest
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.evaluation.evaluator import SplicedSae

TOGETHER = 2**22
"""Codes at a time, tokens x latents."""


@dataclass(frozen=True)
class Fitting:
    """The first so many training activations of one stream; what is made of them is kept."""

    kept: Kept
    stream: int
    block: Block
    tokens: int
    seed: int

    def taken(self, one: SplicedSae) -> tuple[Tensor, Tensor, Tensor]:
        """What an SAE reads and what it is to give, [N, d] each, and the tokens [N]."""
        found, token_N = self.block.take(one.sites, slice(0, self.tokens))
        return found[one.sites[0]], found[one.hook], token_N

    def beside(self, one: SplicedSae, l0: float) -> "Beside":
        """What stands beside an SAE of this L0."""
        _, y_ND, _ = self.taken(one)
        n = max(1, min(round(l0), y_ND.shape[1]))
        where = f"{self.stream}/{'+'.join(one.sites)}"
        every_CD = self.kept.once(f"components/{where}", lambda: components(y_ND, y_ND.shape[1]))
        mean_D = y_ND.cpu().float().mean(0)

        def centroids(few: int) -> Components:
            name, few_CD = f"centroids/{where}/{few}/{one.sae.width}", every_CD[:few]
            rows_KD = self.kept.once(name, lambda: residual_centroids(y_ND, few_CD, one.sae.width, self.seed))
            return Components(mean_D, few_CD, rows_KD)

        alone, both, clusters = Components(mean_D, every_CD[:n], every_CD[:0]), centroids(n - 1), centroids(0)
        named = self._names_of_clusters(f"names of centroids/{where}/{one.sae.width}", one, clusters)
        return Beside(where, "+".join(one.hooks), n, one.sae.width, alone, both, clusters, named, self._names(one))

    def _names(self, one: SplicedSae) -> Tensor:
        def made() -> Tensor:
            x_ND, _, token_N = self.taken(one)
            x_ND, step = x_ND.to(one.sae.tensors["W_enc"]), max(1, TOGETHER // one.sae.width)
            parts = zip(x_ND.split(step), token_N.split(step), strict=True)
            cluster_N = torch.cat([strongest(one.sae.coded(*part)[0], one.sae.width) for part in parts])
            return names(cluster_N, token_N, one.sae.width)

        return self.kept.once(f"names/{self.stream}/{one.label}", made)

    def _names_of_clusters(self, name: str, one: SplicedSae, clusters: Components) -> Tensor:
        def made() -> Tensor:
            _, y_ND, token_N = self.taken(one)
            return names(clusters.clusters(y_ND), token_N, len(clusters.centroid_KD))

        return self.kept.once(name, made)


@dataclass(frozen=True)
class Beside:
    """What stands beside one member; that of members of one site, L0 and width is the same."""

    site: str
    """Which activations it is of: the stream, and what is read and given."""
    hooks: str
    l0: int
    width: int
    alone: Components
    """Principal components and nothing else."""
    both: Components
    clusters: Components
    """Centroids and nothing else."""
    cluster_names: Tensor
    """[K + 1]: the token by which each is known, and that of all."""
    latent_names: Tensor
    """[F + 1]: the same of the member's own latents."""

    @property
    def made(self) -> dict[str, Components]:
        """What gives reconstructions, by name."""
        return {f"pca_{self.l0}": self.alone, self.name: self.both}

    @property
    def name(self) -> str:
        """That of components with centroids."""
        return f"pca_kmeans_{self.l0}_{self.centroids}"

    @property
    def centroids(self) -> int:
        """How many there are: the member's width, or what its tokens are enough for."""
        return len(self.clusters.centroid_KD)
