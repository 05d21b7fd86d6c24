"""Where in a block each kind of site is, and how it is read and changed while the model runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from sae_sweep.model.blocks import Block, BlockMap, Router, first, input_of
from sae_sweep.model.routing import routed

Act = Callable[[Tensor], "Tensor | None"]
"""Is given an activation [R, T, d], which the model may go on to change in place; gives the one to go on with, or None
to leave it."""

_INPUTS = {
    "resid_pre": lambda block: block.module,
    "attn_z": lambda block: block.attention_projection,
    "mlp_in": lambda block: block.mlp,
    "mlp_post": lambda block: block.mlp_projection,
}
_OUTPUTS = {
    "resid_post": lambda block: block.module,
    "attn_out": lambda block: block.attention_added,
    "mlp_out": lambda block: block.mlp_added,
    "experts_out": lambda block: block.experts,
}
_ADDED_KINDS = ("resid_mid", "attn_out", "mlp_out")


class Place(Protocol):
    """A site in a block."""

    def hooked(self, act: Act) -> list[Any]:
        """Let every forward pass go through `act` here. Gives the handles that remove it."""


def place_of(block_map: BlockMap, layer: int, kind: str) -> Place:
    """The place of a site that its block has (`missing`)."""
    block = block_map.blocks[layer]
    if kind == "resid_mid":
        return _Middle(block)
    if kind == "router":
        assert block.router is not None
        module, is_input = block.router.linear or block.router.module, False
    else:
        is_input = kind in _INPUTS
        module = (_INPUTS | _OUTPUTS)[kind](block)
    rows = block.module if (module, is_input) in block_map.flat else None
    if kind == "router" and block.router is not None and block.router.linear is None:
        return _Routing(block.router, block.module)
    return _Module(module, is_input, rows)


def missing(block_map: BlockMap, layer: int, kind: str) -> str | None:
    """Why a block has no such site, in words that follow the model's name; None where it has."""
    block = block_map.blocks[layer]
    if kind.startswith("resid") and not block_map.single:
        return "carries more than one residual stream; use attn_z, mlp_in or mlp_post"
    if kind in ("attn_z", "attn_out") and not block.attends and block.attention is not None:
        return f"has a {type(block.attention).__name__} in block {layer} in place of attention; use resid_post"
    if block.mlp is None and (kind == "resid_mid" or kind.startswith("mlp")):
        return f"has no MLP in block {layer} that model.backend=hf can find; use resid_pre or resid_post"
    if block.experts is None and (kind == "experts_out" or (kind == "router" and block.router is None)):
        return f"has no experts in block {layer} that model.backend=hf can find; use mlp_out"
    if kind == "router" and block.router is None:
        return f"routes to experts in block {layer} by more than the product of a matrix; use experts_out"
    if kind == "mlp_post" and block.experts is not None:
        return f"has experts in block {layer}, each with neurons of its own; use experts_out or mlp_out"
    if kind not in ("resid_mid", "router") and (_INPUTS | _OUTPUTS)[kind](block) is None:
        return f"keeps it in block {layer} where model.backend=hf cannot find it; use model.backend=transformer_lens"
    if kind in _ADDED_KINDS and not block.plain:
        return "adds more or less to the residual than its attention and MLP return; use another kind"
    if kind == "resid_mid" and block.parallel:
        return "runs attention and MLP in parallel, so there is no residual between them; use resid_pre or resid_post"
    return None


class _Rows:
    """Gives activations that a module has end to end the shape [R, T] of the rows that its block is reading."""

    def __init__(self, block: nn.Module | None) -> None:
        self._block, self._shape = block, (0, 0)

    def handles(self) -> list[Any]:
        if self._block is None:
            return []
        return [self._block.register_forward_pre_hook(self._note, with_kwargs=True)]

    def _note(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rows, positions = input_of(args, kwargs).shape[:2]
        self._shape = (rows, positions)

    def through(self, act: Act, value: Tensor) -> Tensor | None:
        if self._block is None:
            return act(value)
        changed = act(value.unflatten(0, self._shape))
        return None if changed is None else changed.flatten(0, 1)


@dataclass(frozen=True)
class _Module:
    """The input or the output of a module; `block` where it has rows end to end."""

    module: nn.Module
    is_input: bool
    block: nn.Module | None = None

    def hooked(self, act: Act) -> list[Any]:
        rows = _Rows(self.block)

        def on_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
            changed = rows.through(act, input_of(args, kwargs))
            if changed is None:
                return None
            return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

        def on_output(_: nn.Module, __: object, output: Any) -> Any:
            changed = rows.through(act, first(output))
            return (changed, *output[1:]) if isinstance(output, tuple) and changed is not None else changed

        if self.is_input:
            return [*rows.handles(), self.module.register_forward_pre_hook(on_input, with_kwargs=True)]
        return [*rows.handles(), self.module.register_forward_hook(on_output)]


@dataclass(frozen=True)
class _Middle:
    """The residual stream between attention and MLP. To change it, attention is made to add what leads there."""

    block: Block

    def hooked(self, act: Act) -> list[Any]:
        before: list[Tensor] = []
        assert self.block.attention_added is not None

        def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            before.append(input_of(args, kwargs))

        def added(value: Tensor) -> Tensor | None:
            middle = before.pop().to(value.device) + value  # a block is given it from where the one before is
            changed = act(middle)
            return None if changed is None else value + (changed - middle)

        handle = self.block.module.register_forward_pre_hook(note, with_kwargs=True)
        return [handle, *_Module(self.block.attention_added, is_input=False).hooked(added)]


@dataclass(frozen=True)
class _Routing:
    """The logits of a router that returns with them what it makes of them."""

    router: Router
    block: nn.Module

    def hooked(self, act: Act) -> list[Any]:
        rows = _Rows(self.block)

        def on_output(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            changed_NE = rows.through(act, output[self.router.index])
            if changed_NE is None:
                return None
            return routed(self.router, changed_NE, args[1:], {k: v for k, v in kwargs.items() if k != "hidden_states"})

        return [*rows.handles(), self.router.module.register_forward_hook(on_output, with_kwargs=True)]
