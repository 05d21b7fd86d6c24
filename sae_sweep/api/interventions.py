"""Interventions on a running model: latents added, latents taken out, reconstructions in place of activations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sae_sweep.api.model import Model, running
from sae_sweep.api.positions import Reading, following
from sae_sweep.errors import ConfigError
from sae_sweep.model.intervene import changing
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.observe import check_hook, observing
from sae_sweep.model.sites import model_of, own_hook

if TYPE_CHECKING:
    from sae_sweep.api.sae import Sae

OF_SEVERAL = (
    "a crosscoder or a cross-layer transcoder is of several sites, some of which the model has not computed yet at the"
    " first; use steer"
)
Change = Callable[[Tensor, Tensor, Reading], Tensor]
"""Given what an SAE reads and what is where it writes, both [R, T, d], gives what is to be there."""


@dataclass
class Splice:
    """What one SAE made of the last forward pass, all [R, T, ...]. Both are nodes of the graph: after a backward pass
    `codes.grad` and `error.grad` are what the loss makes of them."""

    codes: Tensor = field(default_factory=lambda: torch.empty(0))
    """[R, T, F]; 0 at positions that do not count. With a splice before it in the model they depend on its codes."""
    error: Tensor = field(default_factory=lambda: torch.empty(0))
    """[R, T, d]: activation - reconstruction; nothing depends on it but what is computed after it."""


class Splices(Mapping[str, Tensor]):
    """The codes [R, T, F] of the last forward pass by hook, and `error[hook]` what they leave out."""

    def __init__(self, splices: Mapping[str, Splice]) -> None:
        self._splices = splices

    def __getitem__(self, hook: str) -> Tensor:
        return self._splices[hook].codes

    def __iter__(self) -> Iterator[str]:
        return iter(self._splices)

    def __len__(self) -> int:
        return len(self._splices)

    @property
    def error(self) -> dict[str, Tensor]:
        """[R, T, d] by hook."""
        return {hook: splice.error for hook, splice in self._splices.items()}


@contextmanager
def steering(model: Model | LanguageModel, sae: "Sae", amounts: Mapping[int, float]) -> Iterator[None]:
    """While this lasts, amount x W_dec[i] is added for every latent i at every counted position; of a crosscoder over
    two models what W_dec[i] has for this one."""
    run, inference = running(model), sae.frozen(sae.device)
    sae.check_latents(amounts)
    nothing_D = torch.zeros_like(inference.tensors["b_dec"])
    added_D = sum((amount * inference.row(i) for i, amount in amounts.items()), nothing_D)
    with following(run) as reading, ExitStack() as stack:
        number = sae.home.number(run)
        for hook, part_d in zip(sae.writes, added_D.chunk(len(sae.writes)), strict=True):
            if model_of(hook) != number:
                continue

            def add(x_RTd: Tensor, part_d: Tensor = part_d) -> Tensor:
                return reading.where_counted(x_RTd + part_d.to(x_RTd), x_RTd)

            stack.enter_context(changing(run, check_hook(run, own_hook(hook)), add))
        yield


@contextmanager
def ablating(model: Model | LanguageModel, sae: "Sae", latents: Sequence[int]) -> Iterator[None]:
    """While this lasts, f_i x W_dec[i] is taken out for every latent i at every counted position; all else, what the
    SAE does not reconstruct among it, stays."""
    sae.check_latents(latents)
    ids = list(latents)

    def take_out(read_RTd: Tensor, x_RTd: Tensor, reading: Reading) -> Tensor:
        f_RTF = sae.encode(read_RTd, reading.tokens_RT)
        return x_RTd - (f_RTF[..., ids] @ sae.W_dec[ids]).to(x_RTd)

    run = running(model)
    with following(run) as reading, _one_site(run, sae, reading, take_out):
        yield


@contextmanager
def splice(model: Model | LanguageModel, saes: Mapping[str, "Sae"], error: bool = False) -> Iterator[Splices]:
    """While this lasts, each SAE's reconstruction stands at its hook at counted positions of every forward pass.

    With `error` what it leaves out is added back. What is yielded holds the last pass's codes by hook, which carry
    gradients; those at a later hook depend on those at an earlier one. Raises ConfigError for a hook that is not where
    its SAE writes.

    >>> with ss.splice(model, {sae.cfg.hook_name: sae}, error=True) as codes:
    ...     model("def f(x):")[0, -1].max().backward()
    >>> codes[sae.cfg.hook_name].grad.shape
    torch.Size([1, 6, 256])
    """
    with splicing(model, saes, error) as splices:
        yield Splices(splices)


@contextmanager
def splicing(model: Model | LanguageModel, saes: Mapping[str, "Sae"], error: bool) -> Iterator[dict[str, Splice]]:
    """While this lasts, each SAE's reconstruction stands at its hook at counted positions; with `error` what it leaves
    out is added back, as a node of its own. What is yielded is filled anew by every forward pass."""
    run = running(model)
    splices = {hook: Splice() for hook in saes}
    with following(run) as reading, ExitStack() as stack:
        for hook, sae in saes.items():
            if sae.writes != (hook,):
                raise ConfigError(f"splice: {hook} is not where this SAE writes, which is {', '.join(sae.writes)}")
            place = _Placed(sae, splices[hook], error)
            stack.enter_context(_one_site(run, sae, reading, place))
        yield splices


class _Placed:
    """Puts reconstructions in place, and keeps what they are made of."""

    def __init__(self, sae: "Sae", splice: Splice, error: bool) -> None:
        self._sae, self._splice, self._error = sae, splice, error

    def __call__(self, read_RTd: Tensor, y_RTd: Tensor, reading: Reading) -> Tensor:
        sae, tokens_RT = self._sae, reading.tokens_RT
        counted_RT1 = reading.counted_RT[..., None].to(sae.device)
        codes_RTF = sae.encode(read_RTd, tokens_RT).masked_fill(~counted_RT1, 0)
        self._splice.codes = _node(codes_RTF)
        y_hat_RTd = sae.decode(codes_RTF, tokens_RT, read_RTd)
        self._splice.error = error_RTd = _node((y_RTd.to(y_hat_RTd) - y_hat_RTd).detach())
        return y_hat_RTd + error_RTd if self._error else y_hat_RTd


def _node(tensor: Tensor) -> Tensor:
    """The tensor with a gradient of its own, where gradients are taken at all."""
    if torch.is_grad_enabled():
        if tensor.requires_grad:
            tensor.retain_grad()
        else:
            tensor.requires_grad_()
    return tensor


@contextmanager
def _one_site(run: LanguageModel, sae: "Sae", reading: Reading, change: Change) -> Iterator[None]:
    """While this lasts, where an SAE writes becomes what `change` makes of what it reads and of what is there."""
    if len(sae.writes) > 1:
        raise ConfigError(OF_SEVERAL)
    (written,) = sae.writes
    apart, read = [check_hook(run, sae.reads)] if sae.reads != written else [], dict[str, Tensor]()

    def note(hook: str, activation_RTd: Tensor) -> None:
        read[hook] = activation_RTd.clone()  # blocks may add to it in place

    def changed(x_RTd: Tensor) -> Tensor:
        made_RTd = change(read[sae.reads] if apart else x_RTd, x_RTd, reading)
        return reading.where_counted(made_RTd.to(x_RTd), x_RTd)

    with observing(run, apart, note), changing(run, check_hook(run, written), changed):
        yield
