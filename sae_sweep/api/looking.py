"""What latents fire on, and what they do to the next token."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sae_sweep.analyses.contexts.effects import logit_effects as row_effects
from sae_sweep.api.heldout import HeldOutCodes
from sae_sweep.api.model import Model
from sae_sweep.errors import ConfigError
from sae_sweep.model.sites import model_of
from sae_sweep.model.together import harvest_together

if TYPE_CHECKING:
    from sae_sweep.api.sae import Sae


@dataclass(frozen=True)
class Latents:
    """The codes of one text."""

    codes: Tensor
    """[T, F], at every position."""
    tokens: list[str]
    """What each position reads."""

    def top(self, n: int = 5) -> list[tuple[str, list[tuple[int, float]]]]:
        """Each token with its `n` largest latents: their numbers and activations."""
        found = []
        for token, codes_F in zip(self.tokens, self.codes, strict=True):
            values, ids = codes_F.topk(min(n, len(codes_F)))
            pairs = zip(ids.tolist(), values.tolist(), strict=True)
            found.append((token, [(latent, value) for latent, value in pairs if value > 0]))
        return found


@dataclass(frozen=True)
class Context:
    """Some tokens around a place where a latent fires."""

    tokens: list[str]
    activations: list[float]
    """Of the latent, a number for each token; 0 at positions that do not count."""
    position: int
    """The place, in `tokens`."""

    @property
    def activation(self) -> float:
        """At the place."""
        return self.activations[self.position]

    def __str__(self) -> str:
        before, at, after = self._parts()
        return f"{self.activation:8.3f}  {before}[{at}]{after}".replace("\n", "\\n")

    def _parts(self) -> tuple[str, str, str]:
        place = self.position
        return "".join(self.tokens[:place]), self.tokens[place], "".join(self.tokens[place + 1 :])


@dataclass(frozen=True, repr=False)
class Contexts:
    """Where one latent fires on the held-out tokens."""

    latent: int
    density: float
    """The share of counted tokens that it fires on."""
    top: list[Context]
    """The rows that it is largest on, by falling activation."""
    quantiles: list[list[Context]]
    """Places from each quantile of its activations above 0, the lowest first."""

    def __repr__(self) -> str:
        return "\n".join([f"latent {self.latent}, on {self.density:.3%} of tokens", *map(str, self.top)])

    def _repr_html_(self) -> str:
        """For notebooks: the top contexts, darker where the latent is larger."""
        largest = max((context.activation for context in self.top), default=1.0)
        rows = "".join(f"<div><code>{_marked(context, largest)}</code></div>" for context in self.top)
        return f"<p>latent {self.latent}, on {self.density:.3%} of tokens</p>{rows}"


class Looked:
    """The codes that one SAE was last looked at with, for as long as its parameters and its model stay as they are."""

    def __init__(self) -> None:
        self._of: object = None
        self._codes: HeldOutCodes | None = None

    def __reduce__(self) -> tuple[type["Looked"], tuple[()]]:
        return Looked, ()  # a copy of an SAE has no copy of its model

    def codes(self, sae: "Sae", model: Model) -> HeldOutCodes:
        """Its codes on the held-out tokens; those of the time before where nothing has changed since."""
        of = (model, [(id(each), each._version, each.dtype, each.device) for each in sae.parameters()])
        if self._codes is None or of != self._of:
            self._of, self._codes = of, HeldOutCodes(sae, model)
        return self._codes


@dataclass(frozen=True)
class Effects:
    """The tokens whose logits a latent's decoder row raises and lowers most, with by how much for an activation of 1.

    The final norm is left out, so only their order and proportions mean something.
    """

    positive: list[tuple[str, float]]
    negative: list[tuple[str, float]]


def latents_of(sae: "Sae", model: Model, text: str) -> Latents:
    """The codes of an SAE on a text."""
    tokens_RT = model.tokens(text)
    found = harvest_together(sae.home.models(model), tokens_RT, sae.home.hooks)
    x_TD = torch.cat([found[hook][0] for hook in sae.home.hooks], dim=1)
    with torch.no_grad():
        codes_TF = sae.encode(x_TD, tokens_RT[0])
    return Latents(codes_TF, model.strings(tokens_RT))


def top_contexts(sae: "Sae", model: Model, latent: int, n: int, quantiles: int, width: int) -> Contexts:
    """Where a latent fires on the held-out tokens of its sweep."""
    sae.check_latents([latent])
    tokens_RT, f_RT, counted = sae.looked.codes(sae, model).of_latent(latent)

    def contexts(places: Sequence[Sequence[int]]) -> list[Context]:
        return [_context(model, tokens_RT[row], f_RT[row], at, width) for row, at in places]

    best_R, at_R = f_RT.max(dim=1)
    order = [row for row in best_R.argsort(descending=True, stable=True)[:n].tolist() if best_R[row] > 0]
    fired = f_RT.nonzero()
    fired = fired[f_RT[fired[:, 0], fired[:, 1]].argsort(stable=True)]
    generator = torch.Generator().manual_seed(latent)
    drawn = [
        part[torch.randperm(len(part), generator=generator)[:n]].tolist() for part in fired.tensor_split(quantiles)
    ]
    top = contexts([[row, int(at_R[row])] for row in order])
    return Contexts(latent, len(fired) / max(1, counted), top, [contexts(places) for places in drawn])


def logit_effects(sae: "Sae", model: Model, latent: int, n: int) -> Effects:
    """W_dec[latent] through the unembedding; of several sites that of the last in this model."""
    sae.check_latents([latent])
    rows = zip(sae.writes, sae.inference.row(latent).detach().chunk(len(sae.writes)), strict=True)
    number = sae.home.number(model.running)
    hook, row_D = [(hook, row_D) for hook, row_D in rows if model_of(hook) == number][-1]
    found = row_effects(model.running, row_D, n)
    if found is None:
        raise ConfigError(f"{hook} is {len(row_D)} wide, and the unembedding reads another width")
    raised, lowered = (
        list(zip(model.strings([token for token, _ in each]), (effect for _, effect in each), strict=True))
        for each in found
    )
    return Effects(raised, lowered)


def _context(model: Model, tokens_T: Tensor, f_T: Tensor, at: int, width: int) -> Context:
    first = max(0, at - width)
    window = slice(first, at + width + 1)
    return Context(model.strings(tokens_T[window]), f_T[window].tolist(), at - first)


def _marked(context: Context, largest: float) -> str:
    return "".join(
        f'<span style="background: rgba(255, 140, 0, {activation / largest:.2f})">{escape(token)}</span>'
        for token, activation in zip(context.tokens, context.activations, strict=True)
    ).replace("\n", "&#x21B5;")
