"""What is accumulated of one SAE's codes and reconstructions."""

import torch
from torch import Tensor

from sae_sweep.evaluation.core_sums import CoreSums
from sae_sweep.evaluation.metrics import MODELS
from sae_sweep.evaluation.reconstruction import Reconstruction
from sae_sweep.evaluation.sparsity import Sparsity
from sae_sweep.kernels.entries import rows_where
from sae_sweep.kernels.sparse import add_at
from sae_sweep.plan.constants import CODE_ELEMENTS
from sae_sweep.saes.cross_layer import CrossLayerSae
from sae_sweep.saes.inference import InferenceSae


class SaeSums:
    """Sums over R held-out sequences, of which ratios are taken once at the end."""

    def __init__(self, sae: InferenceSae, sequences: int, device: torch.device, core: bool = False, models: int = 1):
        """`core` asks for SAEBench's too; `models` is how many the SAE's sites are in, each in as many of them."""
        self._sae, self._core = sae, CoreSums(device) if core else None
        self.reconstruction = Reconstruction(sae.d_out, device)
        layers = sae.layers if isinstance(sae, CrossLayerSae) else 0
        self._layers = [Reconstruction(sae.d_out // layers, device) for _ in range(layers)]
        each = MODELS if models > 1 else ()
        self._of_models = {name: Reconstruction(sae.d_out // models, device) for name in each}
        self.sparsity = Sparsity(sae.width, sae.decoder_norms, sequences, device)
        self._error2_R = torch.zeros(sequences, dtype=torch.float64, device=device)

    def add(
        self, x_ND: Tensor, tokens_N: Tensor, counts_N: Tensor, sequence_N: Tensor, y_ND: Tensor | None = None
    ) -> Tensor:
        """The reconstructions [N, D] of N activations, or from them of y; those that count go into the sums."""
        x_ND = x_ND.to(self._sae.tensors["W_enc"].dtype)
        y_ND = x_ND if y_ND is None else y_ND.to(x_ND.dtype)
        x_hat_ND = torch.empty_like(y_ND)
        step = max(1, CODE_ELEMENTS[x_ND.device.type] // self._sae.width)
        for start in range(0, len(x_ND), step):
            part = slice(start, start + step)
            x_BD, y_BD, tokens_B, counts_B = x_ND[part], y_ND[part], tokens_N[part], counts_N[part]
            fired, x_hat_BD = self._sae.coded(x_BD, tokens_B)
            x_hat_ND[part] = x_hat_BD
            if not counts_B.all():
                fired, y_BD, x_hat_BD = rows_where(counts_B, fired), y_BD[counts_B], x_hat_BD[counts_B]
            self.reconstruction.update(y_BD, x_hat_BD)
            for layer, own in enumerate(self._layers):
                own.update(*(each.chunk(len(self._layers), dim=1)[layer] for each in (y_BD, x_hat_BD)))
            for number, sums in enumerate(self._of_models.values()):
                sums.update(*(each_BD.chunk(len(self._of_models), dim=1)[number] for each_BD in (y_BD, x_hat_BD)))
            self.sparsity.update(fired, sequence_N[part][counts_B])
            error2_B = (y_BD.double() - x_hat_BD.double()).square().sum(1)
            add_at(self._error2_R, sequence_N[part][counts_B], error2_B)
        if self._core is not None:
            self._core.add(y_ND[counts_N], x_hat_ND[counts_N])
        return x_hat_ND

    @property
    def core_values(self) -> dict[str, float]:
        """What SAEBench's core evaluation has of its own, where that was asked for; each `add` is a batch of it."""
        return {} if self._core is None else self._core.values()

    @property
    def layers(self) -> tuple[dict[str, float | None], ...]:
        """Of each layer of a cross-layer transcoder: how much of what it gives is unexplained; how many of the latents
        that read it fire on a token, and which share of them on any."""
        fired = self.sparsity.frequency_F.chunk(max(1, len(self._layers)))
        return tuple(
            {"fvu": own.metrics()["fvu"], "l0": fired_F.sum().item(), "alive": (fired_F > 0).double().mean().item()}
            for own, fired_F in zip(self._layers, fired, strict=False)
        )

    @property
    def rows(self) -> dict[str, Tensor]:
        """[R]: the sums of each sequence, by name."""
        return {**self.sparsity.rows, "squared_error": self._error2_R}

    def metrics(self) -> dict[str, float | None]:
        """The metrics of codes and reconstructions, and how many tokens they are of."""
        return {
            **self.sparsity.metrics(),
            **self.reconstruction.metrics(),
            **{f"fvu_{name}": sums.metrics()["fvu"] for name, sums in self._of_models.items()},
            "tokens_evaluated": self.sparsity.tokens,
        }
