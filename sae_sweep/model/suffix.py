"""Running only the part of the model that comes after a site, with the site's activation replaced.

The model's own forward runs, so that masks and position embeddings are its own, but the blocks before the site are
made to hand on the residual stream that a clean pass recorded, and the part of the block that would have computed
the activation is made to return the replacement. With model.backend=transformer_lens, and where blocks hand on more
than one residual stream, the whole model runs and a hook replaces the activation.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sae_sweep.errors import ConfigError
from sae_sweep.model.blocks import Block, BlockMap, close, first, input_of, patched
from sae_sweep.model.harvest import collect
from sae_sweep.model.intervene import changing
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.observe import check_hook, observing
from sae_sweep.model.places import place_of
from sae_sweep.model.sites import HOOK_OF_KIND, Site, model_of, parse_hook

# What a suffix pass needs of the clean one, in the site's own block, by kind: where the residual stream enters it and,
# for sites in the MLP, what attention added to it.
_IN_THE_MLP = ("mlp_in", "router", "experts_out", "mlp_post")
_RECORDED = {
    "attn_z": ("resid_pre",),
    "attn_out": ("resid_pre",),
    "mlp_in": ("resid_pre", "attn_out"),
    "router": ("resid_pre", "attn_out"),
    "experts_out": ("resid_pre", "attn_out"),
    "mlp_post": ("resid_pre", "attn_out"),
    "mlp_out": ("resid_pre", "attn_out"),
}


@dataclass(frozen=True)
class CleanPass:
    """One clean forward pass over `tokens_RT`: activations [R, T, d] by hook, and the final hidden states.

    All on the model's device.
    """

    tokens_RT: Tensor
    activations: Mapping[str, Tensor]
    """Of the sites asked for, and of what their suffix passes start from."""
    final_RTD: Tensor
    others: "tuple[CleanPass, ...]" = ()
    """Of further models over the same tokens. Their activations are among these too (`sites.of_model`)."""

    def of(self, hook: str) -> "CleanPass":
        """That of the model which a hook is of."""
        return (self, *self.others)[model_of(hook)]


class Suffix:
    """Suffix passes of a model for the sites of these hooks.

    Raises ConfigError for a hook that this model does not serve, and for a site where putting the clean activation
    back does not give the clean result on a few tokens, so that an unusual architecture is refused and never misread.
    """

    def __init__(self, model: LanguageModel, hooks: Sequence[str], read: Sequence[str] = ()) -> None:
        """Clean passes record the hooks of `read` too."""
        self.model = model
        self.sites = {hook: check_hook(model, hook) for hook in hooks}
        self._recorded = self.sites | {hook: check_hook(model, hook) for hook in read}
        if model.block_map is not None and model.block_map.single:
            for site in self.sites.values():
                self._recorded.update({hook: parse_hook(hook) for hook in _recorded_hooks(model.block_map, site)})
        self._verify()

    @torch.no_grad()
    def clean(self, tokens_RT: Tensor) -> CleanPass:
        """One whole forward pass, recording what suffix passes over the same tokens need."""
        self.model.passes.clean += 1
        return self._clean(tokens_RT)

    def run(self, hook: str, clean: CleanPass, replacement_RTd: Tensor) -> Tensor:
        """The final hidden states [R, T, D] with the hook's activation replaced, for every token of the clean pass.

        Differentiable in the replacement when that requires grad. The blocks before the site do not run.
        """
        self.model.passes.suffix += 1
        return self._run(hook, clean, replacement_RTd)

    def run_watching(
        self, hook: str, clean: CleanPass, replacement_RTd: Tensor, later: Sequence[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`run`, and the activations [R, T, d] that it led to at later hooks, by hook; clean passes record these."""
        found = {}

        def take(hook: str, activation: Tensor) -> None:
            found[hook] = activation.clone()  # blocks may add to it in place

        with observing(self.model, [self._recorded[each] for each in later], take):
            final_RTD = self.run(hook, clean, replacement_RTd)
        return final_RTD, found

    def run_together(
        self, clean: CleanPass, values: Mapping[str, Tensor], where_RT: Tensor, later: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`run_watching` with several hooks' activations replaced at the positions of a mask, in the order in which the
        model computes them: elsewhere those of later ones are what the pass itself makes of them."""
        hook, *others = values
        with ExitStack() as stack:
            for other in others:

                def put(live_RTd: Tensor, value_RTd: Tensor = values[other]) -> Tensor:
                    return torch.where(where_RT[..., None], value_RTd.to(live_RTd), live_RTd)

                stack.enter_context(changing(self.model, self.sites[other], put))
            return self.run_watching(hook, clean, values[hook], later)

    def _clean(self, tokens_RT: Tensor) -> CleanPass:
        activations, final_RTD = collect(self.model, tokens_RT, self._recorded, stop=False)
        assert final_RTD is not None
        return CleanPass(tokens_RT.to(self.model.device), activations, final_RTD)

    def _run(self, hook: str, clean: CleanPass, replacement_RTd: Tensor) -> Tensor:
        own = clean.activations[hook]
        if replacement_RTd.shape != own.shape:
            raise ValueError(f"{hook}: replacement of shape {tuple(replacement_RTd.shape)}, not {tuple(own.shape)}")
        # A copy: some blocks add to what they are given in place.
        value = replacement_RTd.to(own.device, own.dtype, copy=True)
        found, site = self.model.block_map, self.sites[hook]
        if found is None or not found.single:
            replacing = changing(self.model, site, lambda _: value)
        else:
            replacing = _cut(found, site, clean, value)
        with replacing:
            return self.model.final_hidden(clean.tokens_RT)

    @torch.no_grad()
    def _verify(self) -> None:
        clean = self._clean(self.model.probe_tokens())
        for hook in self.sites:
            try:
                again_RTD = self._run(hook, clean, clean.activations[hook])
                same = close(again_RTD.double(), clean.final_RTD.double(), clean.final_RTD.dtype)
            except (AttributeError, TypeError, ValueError, RuntimeError):
                same = False
            if not same:
                raise ConfigError(
                    f"site.hook={hook}: {type(self.model.module).__name__} cannot be continued from there; choose"
                    " another site or model.backend=transformer_lens"
                )


def _recorded_hooks(block_map: BlockMap, site: Site) -> list[str]:
    assert site.layer is not None
    kinds = _RECORDED.get(site.kind or "", ())
    if block_map.blocks[site.layer].attention_added is None:
        kinds = kinds[:1]
    return [f"blocks.{site.layer}.{HOOK_OF_KIND[kind]}" for kind in kinds]


@contextmanager
def _cut(block_map: BlockMap, site: Site, clean: CleanPass, value: Tensor) -> Iterator[None]:
    """While this lasts, a forward pass starts at the site with `value` as its activation."""
    assert site.layer is not None
    # Copies, as of the value: the clean pass serves every member, and a block may add to what it is given in place.
    recorded = [clean.activations[hook].clone() for hook in _recorded_hooks(block_map, site)]
    block = block_map.blocks[site.layer]
    with ExitStack() as stack:
        _start_at(block_map, site.layer + (site.kind == "resid_post"), recorded[0] if recorded else value, stack)
        for added in recorded[1:]:
            _bypass_attention(block_map, block, added, stack)
        if site.kind == "resid_mid":
            # The residual stream enters the block as it is to leave attention, which then adds nothing.
            _bypass_attention(block_map, block, torch.zeros_like(value), stack)
        elif site.kind == "attn_out":
            _bypass_attention(block_map, block, value, stack)
        elif site.kind == "mlp_out":
            _bypass(block_map, block.mlp, block.mlp_projection, block.mlp_added, value, stack)
        elif site.kind == "attn_z" and block.attention in block.direct:
            _return_from(block_map, block.attention, _apply(block.attention_projection, value), stack)
        elif site.kind == "mlp_post" and block.mlp in block.direct:
            _return_from(block_map, block.mlp, _apply(block.mlp_projection, value), stack)
        elif site.kind in ("attn_z", *_IN_THE_MLP):
            for handle in place_of(block_map, site.layer, site.kind).hooked(lambda live: value.to(live.device)):
                stack.callback(handle.remove)
        yield


def _start_at(block_map: BlockMap, live: int, start_RTD: Tensor, stack: ExitStack) -> None:
    """Let the blocks before `live` hand on `start_RTD` instead of running."""
    for block in block_map.blocks[:live]:
        _return_from(block_map, block.module, start_RTD, stack)
    if live == 0:

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            input_of(args, kwargs)
            return ((start_RTD, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": start_RTD})

        handle = block_map.blocks[0].module.register_forward_pre_hook(enter, with_kwargs=True)
        stack.callback(handle.remove)


def _bypass_attention(block_map: BlockMap, block: Block, added: Tensor, stack: ExitStack) -> None:
    _bypass(block_map, block.attention, block.attention_projection, block.attention_added, added, stack)


def _bypass(
    block_map: BlockMap,
    part: nn.Module | None,
    projection: nn.Module | None,
    added: nn.Module | None,
    value: Tensor,
    stack: ExitStack,
) -> None:
    """Let a part add `value`. It need not run, unless it is what adds its projection's output to the residual."""
    if added is not projection:
        _return_from(block_map, part, value, stack)
    _return_from(block_map, added, value, stack)


def _return_from(block_map: BlockMap, module: nn.Module | None, value: Tensor, stack: ExitStack) -> None:
    assert module is not None

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = (each.device for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        return block_map.as_output(module, value.to(next(given, value.device)))

    stack.enter_context(patched(module, forward))


def _apply(module: nn.Module | None, value: Tensor) -> Tensor:
    assert module is not None
    return first(module(value))
