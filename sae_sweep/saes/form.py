"""What an SAE is at inference, beside its tensors: each file of `forms/` says it of one form, and calls it `Form`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from sae_sweep.kernels.entries import Entries

Tensors = dict[str, Tensor]
"""An SAE's tensors by name: W_enc [D, F], W_dec [F, D], b_dec [D], W_skip where there is one, and a form's own [F]."""


@dataclass(frozen=True)
class InferenceForm(ABC):
    """Which latents fire, and with what. Fields are what it takes beside tensors, and cfg.json has them by name."""

    vectors: ClassVar[tuple[str, ...]]
    """The names of its own tensors, which have a number per latent."""
    unitless: ClassVar[frozenset[str]] = frozenset()
    """Those of them that are not in the unit of activations."""
    saelens: ClassVar[str]
    """Its `architecture` in cfg.json; where SAELens has none like it, a name that only we read."""
    saelens_transcoder: ClassVar[str]
    """The same of a transcoder; with a skip, skip_transcoder ends the name."""
    saelens_keys: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """What cfg.json says of it besides."""

    @abstractmethod
    def margins(self, t: Tensors, z_BF: Tensor) -> tuple[Tensor, Tensor]:
        """[B, F] twice, given inputs times W_enc: a latent fires where both are above 0, and then with the second."""

    @abstractmethod
    def fired(self, t: Tensors, read_BD: Tensor) -> Entries:
        """On a CPU: the codes above 0 of what W_enc multiplies, listed."""

    @abstractmethod
    def shifted(self, t: Tensors, shift_F: Tensor) -> dict[str, Tensor]:
        """Its tensors that change where inputs times W_enc become more by a shift, for codes to stay."""

    def trims(self, t: Tensors) -> bool:
        """Whether `trimmed` can set its L0."""
        return True

    @abstractmethod
    def compared(self, own: Tensors, margin_bF: Tensor, magnitude_bF: Tensor) -> Tensor:
        """[N]: what a cut is compared with, for each latent of each row that could fire, given its own tensors and the
        margins of some latents."""

    @abstractmethod
    def trimmed(self, t: Tensors, cut: Tensor) -> dict[str, Tensor]:
        """Its tensors that change where what compares above the cut is to fire, and nothing else."""

    def at(self, k: int) -> "InferenceForm":
        """The same where k latents fire on a token. Raises ValueError where thresholds decide how many do."""
        raise ValueError(f"of {self.saelens} SAEs thresholds decide how many latents fire, not k={k}")

    def each(self, layers: int) -> "InferenceForm":
        """The form of each layer of a cross-layer transcoder, given that of all its latents."""
        return self

    def transcoder(self, t: Tensors) -> "tuple[InferenceForm, Tensors]":
        """The form that a transcoder is saved in, and its tensors: SAELens has not one for every form."""
        return self, t

    def scaled(self, t: Tensors, scale: float) -> Tensors:
        """The tensors for scale x activations."""
        unscaled = ("W_enc", "W_dec", *self.unitless)
        return {name: tensor if name in unscaled else tensor * scale for name, tensor in t.items()}

    def shapes(self, d: int, width: int, d_out: int) -> dict[str, tuple[int, ...]]:
        """Every tensor's but that of a skip, by name."""
        own = dict.fromkeys(self.vectors, (width,))
        return {"W_enc": (d, width), "W_dec": (width, d_out), "b_dec": (d_out,), **own}
