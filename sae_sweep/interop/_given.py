"""What files of a format do not say, said by whoever reads them. It is asked for by name, and never guessed."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sae_sweep.saes.form import InferenceForm
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.forms.topk import TopKForm


@dataclass(frozen=True)
class Given:
    """None is what nobody said. Fields are options of `sae-sweep import`, and of `ss.load`."""

    k: int | None = None
    """How many latents of a token fire."""
    threshold: float | None = None
    """Above which a latent fires."""
    activation: str | None = None
    """relu or topk."""
    subtract_b_dec: bool | None = None
    """Whether b_dec is subtracted from the encoder's input."""
    layout: str | None = None
    """The axes of encoder and decoder as they lie in the file, D numbers and F latents: DF,FD and so on."""

    def __post_init__(self) -> None:
        if self.k is not None and (type(self.k) is not int or self.k < 1):
            raise ValueError(f"k={self.k} is not a whole number above 0")
        if self.threshold is not None and not 0 <= self.threshold < float("inf"):
            raise ValueError(f"threshold={self.threshold} is not a number of at least 0")
        if self.activation not in (None, "relu", "topk"):
            raise ValueError(f"activation={self.activation} is not relu or topk")
        if self.layout not in (None, "DF,FD", "FD,DF", "DF,DF", "FD,FD"):
            raise ValueError(f"layout={self.layout} is not DF,FD or FD,DF or DF,DF or FD,FD")

    @property
    def said(self) -> list[str]:
        """The names of those that are given."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def needed(self, place: Path, name: str, why: str) -> Any:
        """What is given under a name. Raises ValueError where that is nothing, and says why it is asked for."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"{place} does not say {why}; give {name}=")
        return value

    def unneeded(self, place: Path, *names: str) -> None:
        """Raises ValueError where something is given under a name of which the place leaves nothing open."""
        for name in names:
            if name in self.said:
                raise ValueError(f"{place} says itself how its latents fire; leave {name} out")


NOTHING = Given()


def relu_or_topk(file: Path, given: Given) -> InferenceForm:
    """The form of a file whose tensors are the same for both. Raises ValueError where neither is given, or both."""
    if given.activation == "relu":
        if given.k is not None:
            raise ValueError(f"{file}: activation=relu and k={given.k} are given, of which one can be")
        return ReluForm()
    return TopKForm(given.needed(file, "k", "whether it is ReLU or TopK, and with which k (of ReLU activation=relu)"))
