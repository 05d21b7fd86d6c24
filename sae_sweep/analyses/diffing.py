"""What a crosscoder over two models has of one of them alone (Lindsey et al. 2024; Minder et al., arXiv 2504.02922).

The relative norm of a latent's two decoder rows, each in the scale that its model's activations were trained at, is 0
where only the first has one, 1 where only the second has, 0.5 where they are as long. A row that sparsity has shrunk is
no proof that a model lacks what it was for. So the second model's row, times the codes, is fitted by a factor to what
each model's reconstruction leaves of its activations (with what the latent itself adds), and to the reconstruction: nu
is the factor of the first model over that of the second. It is near 0 where the first has nothing along that row.

Shares are read against the same of latents whose rows are about as long.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.analyses.session.batch import Batch
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from sae_sweep.interop import told
from sae_sweep.kernels.entries import rows_where
from sae_sweep.kernels.sparse import add_at, sampled_products

BINS = 20
SUMS = ("squares", "error_first", "error_second", "reconstruction_first", "reconstruction_second")
"""What is summed of each latent: its codes squared, and times the products of the second row with what is fitted."""


@dataclass(frozen=True)
class Config:
    """Which latents are one model's alone, and which of these the other has nothing of."""

    alone: float
    nu_error: float
    nu_reconstruction: float


@dataclass(frozen=True)
class Diffs:
    """Of F latents; NaN where one never fired."""

    relative_norm_F: Tensor
    cosine_F: Tensor
    """Of the two rows."""
    nu_error_F: Tensor
    nu_reconstruction_F: Tensor
    alive_F: Tensor

    @classmethod
    def of(cls, rows: Sequence[Tensor], sums: Mapping[str, Tensor]) -> "Diffs":
        """`rows` [F, D] are the decoder rows of the first model and of the second, `sums` [F] those of SUMS."""
        first_FD, second_FD = (each.double() for each in rows)
        norms = torch.stack([first_FD.norm(dim=1), second_FD.norm(dim=1)])
        tiny = torch.finfo(torch.float64).tiny
        relative_F = 0.5 * ((norms[1] - norms[0]) / norms.amax(0).clamp(min=tiny) + 1)
        products_F = (first_FD * second_FD).sum(1)
        own = sums["squares"] * products_F, sums["squares"] * norms[1].square()
        return cls(
            relative_F,
            products_F / norms.prod(0).clamp(min=tiny),
            (sums["error_first"] + own[0]) / (sums["error_second"] + own[1]),
            sums["reconstruction_first"] / sums["reconstruction_second"],
            sums["squares"] > 0,
        )

    def numbers(self, config: Config) -> dict[str, Number]:
        """Shares of latents that fired, with the errors of shares; those of none are left out."""
        alone, norm_F = config.alone, self.relative_norm_F
        first_F, second_F = self.alive_F & (norm_F <= alone), self.alive_F & (norm_F >= 1 - alone)
        shared_F = self.alive_F & ((norm_F - 0.5).abs() <= alone)
        kinds = {"first_only": first_F, "second_only": second_F, "shared": shared_F}
        found = {name: _share(chosen_F[self.alive_F], None) for name, chosen_F in kinds.items()}
        shrunk_F, decoupled_F = self.nu_error_F >= config.nu_error, self.nu_reconstruction_F >= config.nu_reconstruction
        specific_F = (self.nu_error_F < config.nu_error) & (self.nu_reconstruction_F < config.nu_reconstruction)
        for name, chosen_F in {"shrunk": shrunk_F, "decoupled": decoupled_F, "specific": specific_F}.items():
            found[name] = _share(chosen_F[second_F], chosen_F[shared_F])
        found["cosine"] = _mean(self.cosine_F[shared_F], None)
        return {name: number for name, number in found.items() if number.n}

    def details(self) -> dict[str, list[float | None]]:
        """By latent, in JSON's types."""
        named = {
            "relative_norm": self.relative_norm_F,
            "cosine": self.cosine_F,
            "nu_error": self.nu_error_F,
            "nu_reconstruction": self.nu_reconstruction_F,
        }
        alive = self.alive_F.tolist()
        return {
            name: [v if ok and v == v else None for v, ok in zip(values_F.tolist(), alive, strict=True)]
            for name, values_F in named.items()
        }


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """The relative norms and factors of every member."""
    if not 0 < config.alone < 0.25:
        raise ConfigError(f"analysis.diffing.alone={config.alone:g} must be above 0 and below 0.25")
    for sae in saes:
        if sae.spliced.models != 2:
            raise ConfigError(f"analysis.diffing: {sae.label} is of one model; --member those with site.models")
    rows = {sae.label: _scaled_rows(sae) for sae in saes}
    on = {sae.label: session.stream(sae.label).model.device for sae in saes}
    sums = {sae.label: session.kept.zeros(sae.label, len(SUMS), sae.sae.width, device=on[sae.label]) for sae in saes}
    while (batch := (yield)) is not None:
        for label in batch.saes:
            _add(sums[label], batch, label, *rows[label])
    members, series, details = {}, [], {}
    for sae in saes:
        scaled_FD, _ = rows[sae.label]
        own = Diffs.of(scaled_FD.chunk(2, dim=1), dict(zip(SUMS, sums[sae.label].cpu(), strict=True)))
        members[sae.label], details[sae.label] = own.numbers(config), own.details()
        series.append(_histogram(sae.label, own.relative_norm_F[own.alive_F]))
    title = "Relative norm of a latent's decoder rows: 0 is the first model's alone, 1 the second's"
    return Result(members=members, figure=Figure(title, "relative norm", "share of latents", series), details=details)


def _scaled_rows(sae: FinishedSae) -> tuple[Tensor, Tensor]:
    """The decoder rows [F, D] at the scales of training, and these [D]."""
    W_dec = sae.sae.tensors["W_dec"]
    scales = torch.tensor(told(sae.folder)["input_scale"], dtype=W_dec.dtype)
    scale_D = scales.repeat_interleave(W_dec.shape[1] // len(scales))
    return W_dec * scale_D, scale_D


def _add(sums: Tensor, batch: Batch, label: str, rows_FD: Tensor, scale_D: Tensor) -> None:
    """Take in the counted positions of a batch."""
    where_RT = batch.replaced(label)
    counts_N = batch.counted(label)[where_RT]
    codes, y_hat_ND = batch.coded(label)
    codes, y_hat_ND = rows_where(counts_N, codes), y_hat_ND[counts_N] * scale_D.to(y_hat_ND)
    y_ND = batch.written(label, where_RT)[counts_N].to(y_hat_ND) * scale_D.to(y_hat_ND)
    second_FD = rows_FD.chunk(2, dim=1)[1].to(y_hat_ND).contiguous()
    column_N = codes.column_N.long()
    add_at(sums[0], column_N, codes.value_N.double().square())
    fitted = (y_ND - y_hat_ND).chunk(2, dim=1) + y_hat_ND.chunk(2, dim=1)
    for own_F, part_ND in zip(sums[1:], fitted, strict=True):
        along_N = sampled_products(part_ND.contiguous(), second_FD, codes.column_N, codes.offsets)
        add_at(own_F, column_N, (along_N * codes.value_N).double())


def _share(chosen: Tensor, control: Tensor | None) -> Number:
    """Of latents that a mask chooses, with the error of a share."""
    return _mean(chosen, None if control is None or not len(control) else control.double().mean().item())


def _mean(values: Tensor, control: float | None) -> Number:
    n, values = len(values), values.double()
    error = (values.std() / n**0.5).item() if n > 1 else None
    return Number(values.mean().item() if n else 0.0, error, n, control)


def _histogram(label: str, norms_A: Tensor) -> Series:
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)
    shares = torch.histogram(norms_A.cpu().clamp(0, 1), edges).hist / max(1, len(norms_A))
    return Series(label, ((edges[1:] + edges[:-1]) / 2).tolist(), shares.tolist())
