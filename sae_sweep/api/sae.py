"""One SAE as it is used from Python: on raw activations, and in the language model that it is of."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from sae_sweep.api.home import Home
from sae_sweep.api.interventions import OF_SEVERAL, Splice, ablating, splicing, steering
from sae_sweep.api.looking import Contexts, Effects, Latents, Looked, latents_of, logit_effects, top_contexts
from sae_sweep.api.model import Model
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.evaluation.places import between
from sae_sweep.saes.inference import InferenceSae


class Sae(nn.Module):
    """An SAE on raw activations of any leading shape.

    Its parameters have the field's names: W_enc [D, F], W_dec [F, D], b_enc [F], b_dec [D], and what its form has
    besides (threshold, b_gate, b_mag, r_mag, W_skip). They take no gradients until `requires_grad_()`. `cfg` has what
    SAEBench asks of it. A tokenized SAE needs token ids beside activations, and says so where they are missing.

    >>> x = ss.harvest(model, sae.cfg.hook_name, "def f(x):")
    >>> f = sae.encode(x)
    >>> f.shape, bool((sae(x) == sae.decode(f)).all())
    (torch.Size([6, 256]), True)
    >>> sae.to(dtype=torch.float64).cfg.dtype
    'float64'
    """

    W_enc: Tensor
    W_dec: Tensor
    b_enc: Tensor
    b_dec: Tensor
    lookup: Tensor | None

    def __init__(self, sae: InferenceSae, home: Home) -> None:
        super().__init__()
        self._plain, self.home = sae, home
        for name, tensor in sae.tensors.items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        if "b_enc" not in sae.tensors:  # gated: of its two, the one that those who ask for this name expect
            self.register_buffer("b_enc", sae.tensors["W_enc"].new_zeros(sae.width), persistent=False)
        self.register_buffer("lookup", None if sae.lookup is None else sae.lookup.rows_VD, persistent=False)
        self.cfg = SimpleNamespace(**home.facts(sae))
        self.looked = Looked()
        self._tell_place()

    def _apply(self, fn: Any, recurse: bool = True) -> "Sae":
        super()._apply(fn, recurse)
        self._tell_place()
        return self

    def _tell_place(self) -> None:
        self.cfg.dtype, self.cfg.device = str(self.dtype).removeprefix("torch."), str(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of its parameters, codes and reconstructions."""
        return self.W_dec.dtype

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return self.W_dec.device

    @property
    def reads(self) -> str:
        """The hook that it reads; of several the first."""
        return self.home.hooks[0]

    @property
    def writes(self) -> tuple[str, ...]:
        """The hooks whose activations it reconstructs: several for crosscoders and cross-layer transcoders."""
        return self.home.written

    @property
    def inference(self) -> InferenceSae:
        """The same as what sweeps judge and save: its tensors are these parameters."""
        lookup = self._plain.lookup
        if lookup is not None:
            assert self.lookup is not None
            lookup = replace(lookup, rows_VD=self.lookup)
        return replace(self._plain, tensors={name: getattr(self, name) for name in self._plain.tensors}, lookup=lookup)

    def at(self, k: int) -> "Sae":
        """The same TopK SAE with k latents firing on a token, its parameters shared: one that is trained for every
        number up to its own (`sae=hierarchical_topk`) is as good at each. Raises ConfigError where that cannot be.

        >>> x = sae.b_dec + sae.W_dec[:5]
        >>> bool(((sae.at(2).encode(x) > 0).sum(1) <= 2).all())
        True
        """
        try:
            form = self._plain.form.at(k)
            form.shapes(self.W_enc.shape[0], self.cfg.d_sae, self.W_dec.shape[1])
        except ValueError as error:
            raise ConfigError(f"at({k}): {error}") from error
        made = Sae(replace(self.inference, form=form), self.home)
        made.train(self.training)
        return made

    def frozen(self, device: torch.device) -> InferenceSae:
        """The same on a device, and without gradients."""
        return self.inference.mapped(lambda tensor: tensor.detach().to(device))

    def spliced(self, device: torch.device, watched: Sequence[str] = ()) -> SplicedSae:
        """The same where it reads and writes, as it is judged; `watched` are hooks after that."""
        reads = self.home.hooks if self.home.hooks != self.writes else ()
        one = SplicedSae(self.home.folder.name, self.writes[0], self.frozen(device), watched=tuple(watched))
        return between(one, reads, self.writes)

    @property
    def provenance(self) -> dict[str, Any]:
        """How it came to be: command, resolved config, versions, commit, host, times, fingerprints of model and data.
        Raises ConfigError where no file says it."""
        return self.home.provenance

    def check_latents(self, latents: Iterable[int]) -> None:
        """Raises ConfigError for a latent that there is not."""
        for latent in latents:
            if not 0 <= latent < self.cfg.d_sae:
                raise ConfigError(f"latent {latent}: this SAE has latents 0 to {self.cfg.d_sae - 1}")

    def encode(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """[..., F]: the latents of activations [..., D], 0 where they do not fire; where and of the dtype that its
        parameters are."""
        flat_BD = x.reshape(-1, x.shape[-1]).to(self.W_enc)
        f_BF = self.inference.encode(flat_BD, self._flat(tokens))
        return f_BF.reshape(*x.shape[:-1], -1)

    def decode(self, f: Tensor, tokens: Tensor | None = None, x: Tensor | None = None) -> Tensor:
        """[..., D]: the reconstruction of codes [..., F]. A transcoder with a skip needs its inputs x too."""
        flat_BF = f.reshape(-1, f.shape[-1])
        flat_BD = None if x is None else x.reshape(-1, x.shape[-1]).to(self.W_enc)
        x_hat_BD = self.inference.decode(flat_BF, self._flat(tokens), flat_BD)
        return x_hat_BD.reshape(*f.shape[:-1], -1)

    def _flat(self, tokens: Tensor | None) -> Tensor | None:
        return None if tokens is None else tokens.reshape(-1).to(self.device)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """[..., D]: the reconstructions of activations [..., D]."""
        return self.decode(self.encode(x, tokens), tokens, x)

    def model(self, device: str | None = None, dtype: str | None = None, second: bool = False) -> Model:
        """The language model that it was trained on, with its tokenizer, in the dtype it was trained with; of a
        crosscoder over two models the first, or the second.

        >>> model = sae.model()
        >>> model("def f(x):").shape  # [R, T, V]
        torch.Size([1, 6, 4096])

        Raises ConfigError where what it was loaded from does not say which, or it cannot be loaded.
        """
        return self.home.model(device, dtype, second)

    def latents(self, model: Model, text: str) -> Latents:
        """Its codes on a text, [T, F], with token strings beside."""
        return latents_of(self, model, text)

    def top_contexts(
        self, latent: int, n: int = 10, quantiles: int = 5, width: int = 10, model: Model | None = None
    ) -> Contexts:
        """Where a latent fires on the sweep's held-out tokens: the `n` rows that it is largest on, and `n` places from
        each of so many quantiles of its activations, each with `width` tokens on either side. `model` is its own where
        it is not given."""
        return top_contexts(self, model or self.model(), latent, n, quantiles, width)

    def logit_effects(self, latent: int, n: int = 10, model: Model | None = None) -> Effects:
        """The tokens whose logits W_dec[latent] raises and lowers most, straight through the unembedding. `model` is
        its own where it is not given."""
        return logit_effects(self, model or self.model(), latent, n)

    def density(self) -> Tensor:
        """[F]: the share of held-out tokens that each latent fires on. ConfigError where no file says it."""
        return self.home.density()

    def steer(self, model: Model, amounts: Mapping[int, float]) -> AbstractContextManager[None]:
        """While this lasts, amount x W_dec[i] is added for each latent i at counted positions of every forward pass.

        >>> with sae.steer(model, {9: 8.0}):
        ...     text = model.generate("def f(x):", max_new_tokens=4)
        """
        return steering(model, self, amounts)

    def ablate(self, model: Model, latents: Sequence[int]) -> AbstractContextManager[None]:
        """While this lasts, f_i x W_dec[i] is taken out for each latent i; what the SAE leaves unexplained stays."""
        return ablating(model, self, latents)

    @contextmanager
    def splice(self, model: Model, error: bool = False) -> Iterator[Splice]:
        """While this lasts, reconstructions stand in place of activations at counted positions.

        With `error` what they leave out is added back, so that no logit changes. What is yielded holds `codes` and
        `error` of the last forward pass, which have gradients of their own.
        """
        if len(self.writes) > 1:
            raise ConfigError(OF_SEVERAL)
        with splicing(model, {self.writes[0]: self}, error) as splices:
            yield splices[self.writes[0]]
