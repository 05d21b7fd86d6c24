"""Finding the blocks of a model, and in each what attends and what is its MLP.

Parts are found by the names architectures use; what the names cannot tell (does the MLP read the residual before or
after attention, which of the modules gives what is added to it) is measured on a few tokens.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from sae_sweep.errors import ConfigError
from sae_sweep.model.blocks import Block, BlockMap, Router, close, first, input_of
from sae_sweep.model.routing import routed

_BLOCK_LISTS = ("model.layers", "transformer.h", "gpt_neox.layers", "model.decoder.layers")
_ATTENTION = ("self_attn", "attn", "attention", "self_attention", "linear_attn")
_IN_ITS_PLACE = ("mamba", "conv", "temporal_block", "mixer")
_ATTENTION_PROJECTION = ("o_proj", "c_proj", "out_proj", "dense", "wo")
_MLP = ("mlp", "feed_forward", "ffn", "mlp_block", "fc1")  # the last of OPT, whose blocks have no module for it
_MLP_PROJECTION = ("down_proj", "c_proj", "dense_4h_to_h", "fc_out", "fc2", "w2")
_EXPERTS, _ROUTER = ("experts",), ("router", "gate")
# Norms through which a block passes what attention and MLP write, where it has both of a pair.
_OUTPUT_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)


def map_blocks(module: nn.Module, n_layers: int, run: Callable[[], object]) -> BlockMap:
    """The map of a causal language model with `n_layers` blocks; `run` is a forward pass over a few tokens.

    Raises ConfigError when there is no list of that many blocks.
    """
    named = [_find_parts(block) for block in _find_blocks(module, n_layers)]
    seen = _record(named, run)
    blocks = tuple(_measured(block, seen) for block in named)
    lengths = {part: len(output) for part, output in seen.outputs.items() if isinstance(output, tuple)}
    taken = {(part, True) for part, value in seen.inputs.items() if value.ndim == 2}
    given = {(part, False) for part, value in seen.outputs.items() if first(value).ndim == 2}
    single = all(seen.inputs[block.module].ndim == 3 for block in blocks)
    return BlockMap(blocks, lengths, frozenset(taken | given), single)


@dataclass(frozen=True)
class _Seen:
    """Of one forward pass: what modules were called with, and what they gave. Copies: some blocks add in place."""

    inputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    outputs: dict[nn.Module, Any] = field(default_factory=dict)

    def note_input(self, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs.get("hidden_states")
        if isinstance(given, Tensor):
            self.inputs[part] = given.clone()

    def note_block(self, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.inputs[part] = input_of(args, kwargs).clone()

    def note_output(self, part: nn.Module, _: object, output: Any) -> None:
        many = isinstance(output, tuple | list)
        values = [value.clone() if isinstance(value, Tensor) else value for value in (output if many else [output])]
        if values and isinstance(values[0], Tensor):
            self.outputs[part] = tuple(values) if many else values[0]

    def note_end(self, part: nn.Module, _: object, output: Any) -> None:
        first(output)
        self.note_output(part, _, output)


def _record(blocks: list[Block], run: Callable[[], object]) -> _Seen:
    seen = _Seen()
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(block.module.register_forward_pre_hook(seen.note_block, with_kwargs=True))
            parts = _parts(block)
            for part in dict.fromkeys((*parts, *block.module.children())):
                stack.enter_context(part.register_forward_pre_hook(seen.note_input, with_kwargs=True))
            for part in dict.fromkeys(parts):
                stack.enter_context(part.register_forward_hook(seen.note_output))
            stack.enter_context(block.module.register_forward_hook(seen.note_end))
        run()
    silent = [block for block in blocks if block.module not in seen.inputs or block.module not in seen.outputs]
    if silent:
        raise ConfigError(
            f"model.path: not supported: a {type(silent[0].module).__name__} takes no part in reading text"
        )
    return seen


def _parts(block: Block) -> list[nn.Module]:
    router = () if block.router is None else (block.router.module, block.router.linear)
    attention = (block.attention, block.attention_projection, block.attention_added)
    parts = (*attention, block.mlp, block.mlp_projection, block.mlp_added, block.experts, *router)
    return [part for part in parts if part is not None]


def _find_blocks(module: nn.Module, n_layers: int) -> nn.ModuleList:
    """The list of blocks, among those that read text where the model says which these are: a model that also sees may
    have as many for that."""
    reads = getattr(module, "get_decoder", lambda: module)()
    inside = set((reads if isinstance(reads, nn.Module) else module).modules())
    every = {name: part for name, part in module.named_modules() if isinstance(part, nn.ModuleList)}
    lists = {name: part for name, part in every.items() if part in inside} or every
    found = [lists[name] for name in _BLOCK_LISTS if name in lists and len(lists[name]) == n_layers]
    found += [part for part in lists.values() if len(part) == n_layers]
    if not found:
        raise ConfigError(
            f"model.path: {type(module).__name__} has no list of {n_layers} blocks that model.backend=hf can find;"
            " use model.backend=transformer_lens"
        )
    return found[0]


def _child(module: nn.Module | None, names: tuple[str, ...]) -> nn.Module | None:
    children = {} if module is None else dict(module.named_children())
    return next((children[name] for name in names if name in children), None)


def _find_parts(block: nn.Module) -> Block:
    attention, mlp = _child(block, _ATTENTION), _child(block, _MLP)
    mixer = attention if attention is not None else _child(block, _IN_ITS_PLACE)
    inner = _child(attention, _ATTENTION)  # GPT-Neo wraps its attention in another
    pair = next((pair for pair in _OUTPUT_NORMS if all(hasattr(block, name) for name in pair)), None)
    holder = next((part for part in (mlp, block) if _child(part, _EXPERTS) is not None), None)
    experts = _child(holder, _EXPERTS)
    return Block(
        module=block,
        attention=mixer,
        attention_projection=_child(attention if inner is None else inner, _ATTENTION_PROJECTION),
        attention_added=mixer if pair is None else getattr(block, pair[0]),
        mlp=mlp,
        mlp_projection=_child(block if isinstance(mlp, nn.Linear) else mlp, _MLP_PROJECTION),
        mlp_added=mlp if pair is None else getattr(block, pair[1]),
        attends=attention is not None,
        experts=None if isinstance(experts, nn.ModuleList) else experts,
        router=_find_router(_child(holder, _ROUTER)),
    )


def _find_router(module: nn.Module | None) -> Router | None:
    if module is None:
        return None
    inside = [module] if type(module) is nn.Linear else [c for c in module.children() if isinstance(c, nn.Linear)]
    return Router(module, inside[0] if len(inside) == 1 else None)


def _measured(block: Block, seen: _Seen) -> Block:
    """The block, with what a pass over a few tokens showed of it."""
    ends = ((block.attention, block.attention_projection), (block.mlp, block.mlp_projection))
    direct = frozenset(part for part, end in ends if part is not None and _same(part, end, seen))
    positions = _rows(seen.inputs[block.module]).shape[0]
    per_token = block.experts in seen.outputs and _rows(first(seen.outputs[block.experts])).shape[0] == positions
    experts = block.experts if per_token else None
    found = replace(block, direct=direct, experts=experts, router=_measured_router(block.router, seen))
    terms = (block.attention_added, block.attention, block.attention_projection)
    attention_terms = [part for part in dict.fromkeys(terms) if part in seen.outputs]
    terms = (block.mlp_added, block.mlp, block.mlp_projection)
    mlp_terms = [part for part in dict.fromkeys(terms) if part in seen.outputs]
    read = [seen.inputs[part] for part in block.module.children() if part in seen.inputs]
    entered, left = seen.inputs[block.module], first(seen.outputs[block.module])
    for attention in attention_terms:
        added = [entered, first(seen.outputs[attention])]
        serial = any(_is_sum(added, each) for each in read)
        for mlp in mlp_terms:
            total = [*added, first(seen.outputs[mlp])]
            # What comes of the sum may be read by a further part, or be scaled.
            later = serial and (any(_is_sum(total, each) for each in read) or _is_sum(total, left, scaled=True))
            if later or _is_sum(total, left):
                return replace(found, attention_added=attention, mlp_added=mlp, plain=True, parallel=not serial)
    return found


def _same(part: nn.Module, end: nn.Module | None, seen: _Seen) -> bool:
    if part not in seen.outputs or end not in seen.outputs:
        return False
    return torch.equal(_rows(first(seen.outputs[part])), _rows(first(seen.outputs[end])))


def _rows(value: Tensor) -> Tensor:
    return value.flatten(0, -2)


def _is_sum(terms: Iterable[Tensor], total: Tensor, *, scaled: bool = False) -> bool:
    """Whether the total is the sum of the terms, entry by entry and as well as their dtype rounds; or, where it may be
    scaled, a multiple of it."""
    terms = list(terms)
    if any(_rows(term).shape != _rows(total).shape for term in terms):
        return False
    eps = max(torch.finfo(term.dtype).eps for term in (*terms, total))
    rows = [_rows(term).to(total.device).double() for term in terms]
    summed, wanted = torch.stack(rows).sum(0), _rows(total).double()
    size = torch.stack(rows).abs().sum(0)
    if scaled:
        factor = (summed * wanted).sum() / summed.square().sum()
        summed, size = summed * factor, size * factor.abs()
    return bool(((summed - wanted).abs() <= 4 * eps * (size + wanted.abs())).all())


def _measured_router(router: Router | None, seen: _Seen) -> Router | None:
    """The router, with where its logits are; None where they are not what a matrix gives, or it cannot be asked what
    it makes of others."""
    if router is None or router.module not in seen.outputs:
        return None
    if router.linear is not None:
        return router if router.linear in seen.outputs else None
    output, weight = seen.outputs[router.module], getattr(router.module, "weight", None)
    if not isinstance(output, tuple) or not isinstance(weight, Tensor) or weight.ndim != 2 or weight.is_meta:
        return None
    if weight.shape[0] > weight.shape[1]:
        return None
    bias = getattr(router.module, "bias", None)
    terms = (_rows(seen.inputs[router.module]), weight, *([] if bias is None else [bias]))
    made_NE = nn.functional.linear(*(term.double() for term in terms))
    for index, given in enumerate(output):
        if isinstance(given, Tensor) and given.shape == made_NE.shape and close(given, made_NE, weight.dtype):
            found = Router(router.module, None, index)
            return found if _routes(found, given, output) else None
    return None


def _routes(router: Router, logits_NE: Tensor, output: tuple[Any, ...]) -> bool:
    try:
        again = routed(router, logits_NE, (), {})
    except (TypeError, RuntimeError, AttributeError):
        return False
    return all(torch.equal(one, other) for one, other in zip(again, output, strict=True) if isinstance(one, Tensor))
