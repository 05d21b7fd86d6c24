"""Where a Hugging Face causal language model keeps its blocks, and what in a block attends and what is its MLP.

Parts are found by the names architectures use; what the names cannot tell (does the MLP read the residual before or
after attention, is the block's output the plain sum of its parts) is measured on a few tokens.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sae_sweep.errors import ConfigError

_BLOCK_LISTS = ("model.layers", "transformer.h", "gpt_neox.layers", "model.decoder.layers")
_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_ATTENTION_PROJECTION = ("o_proj", "c_proj", "out_proj", "dense", "wo")
_MLP = ("mlp", "feed_forward", "ffn")
_MLP_PROJECTION = ("down_proj", "c_proj", "dense_4h_to_h", "fc_out", "fc2", "w2")
# Norms through which a block passes what attention and MLP write, where it has both of a pair.
_OUTPUT_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)


@dataclass(frozen=True)
class Block:
    """One block and its parts, None where it has none under a known name.

    `added` is the module whose output is added to the residual: the part itself, or the norm after it. `projection`
    is the linear layer that ends the part.
    """

    module: nn.Module
    attention: nn.Module | None
    attention_projection: nn.Module | None
    attention_added: nn.Module | None
    mlp: nn.Module | None
    mlp_projection: nn.Module | None
    mlp_added: nn.Module | None


@dataclass(frozen=True)
class BlockMap:
    """The blocks in order, and what was measured of them."""

    blocks: tuple[Block, ...]
    parallel: bool
    """The MLP reads the residual from before attention, so that there is no resid_mid."""
    plain: bool
    """A block's output is its input plus what attention adds plus what the MLP adds."""
    lengths: dict[nn.Module, int]
    """Of the blocks, attention and MLP modules that return a tuple, its length."""

    def as_output(self, module: nn.Module, value: Tensor) -> Any:
        """`value` in the form this module returns: itself, or the first of a tuple."""
        length = self.lengths.get(module)
        return value if length is None else (value, *[None] * (length - 1))


@contextmanager
def patched(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Give `module` another forward, and its own back at the end whatever happens."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


def first(output: Any) -> Tensor:
    """The hidden states of a module's output, which may be a tuple or list that begins with them. Raises ConfigError
    for any other."""
    value = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(value, Tensor):
        raise ConfigError(f"model.path: not supported: a block or part gives a {type(value).__name__}, not a tensor")
    return value


def input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states a block or projection was called with."""
    value = args[0] if args else kwargs.get("hidden_states")
    if not isinstance(value, Tensor):
        raise ConfigError("model.path: not supported: a block or projection is not called with hidden states")
    return value


def map_blocks(module: nn.Module, n_layers: int, run: Callable[[], object]) -> BlockMap:
    """The map of a causal language model with `n_layers` blocks; `run` is a forward pass over a few tokens.

    Raises ConfigError when there is no list of that many blocks.
    """
    blocks = tuple(_find_parts(block) for block in _find_blocks(module, n_layers))
    seen = _record(blocks, run)
    lengths = {part: len(output) for part, output in seen.outputs.items() if isinstance(output, tuple)}
    plain = all(_adds_plainly(block, seen) for block in blocks)
    found = BlockMap(blocks, parallel=False, plain=plain, lengths=lengths)
    return replace(found, parallel=_is_parallel(found, seen, run))


@dataclass(frozen=True)
class _Seen:
    inputs: dict[nn.Module, Tensor]
    outputs: dict[nn.Module, Any]


def _record(blocks: tuple[Block, ...], run: Callable[[], object]) -> _Seen:
    """The inputs of the blocks and the outputs of blocks and parts in one forward pass."""
    seen = _Seen({}, {})

    # Copies: some blocks add to these tensors in place.
    def note_input(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.inputs[part] = input_of(args, kwargs).clone()

    def note_output(part: nn.Module, _: object, output: Any) -> None:
        value = first(output).clone()
        seen.outputs[part] = (value, *output[1:]) if isinstance(output, tuple | list) else value

    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(block.module.register_forward_pre_hook(note_input, with_kwargs=True))
            parts = {block.module, block.attention, block.attention_added, block.mlp, block.mlp_added} - {None}
            for part in parts:
                assert part is not None
                stack.enter_context(part.register_forward_hook(note_output))
        run()
    silent = [block for block in blocks if block.module not in seen.inputs or block.module not in seen.outputs]
    if silent:
        raise ConfigError(
            f"model.path: not supported: a {type(silent[0].module).__name__} takes no part in reading text"
        )
    return seen


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
    inner = _child(attention, _ATTENTION)  # GPT-Neo wraps its attention in another
    pair = next((pair for pair in _OUTPUT_NORMS if all(hasattr(block, name) for name in pair)), None)
    return Block(
        module=block,
        attention=attention,
        attention_projection=_child(inner or attention, _ATTENTION_PROJECTION),
        attention_added=attention if pair is None else getattr(block, pair[0]),
        mlp=mlp,
        mlp_projection=_child(mlp, _MLP_PROJECTION),
        mlp_added=mlp if pair is None else getattr(block, pair[1]),
    )


def _adds_plainly(block: Block, seen: _Seen) -> bool:
    if block.attention_added not in seen.outputs or block.mlp_added not in seen.outputs:
        return False
    terms = (
        seen.inputs[block.module],
        first(seen.outputs[block.attention_added]),
        first(seen.outputs[block.mlp_added]),
    )
    output = first(seen.outputs[block.module])
    if any(term.shape != output.shape for term in terms):
        return False
    total = terms[0].double() + terms[1].double() + terms[2].double()
    return close(total, output.double(), output.dtype)


def _is_parallel(block_map: BlockMap, seen: _Seen, run: Callable[[], object]) -> bool:
    """Whether the first block's MLP writes the same when attention writes nothing."""
    attention, mlp = block_map.blocks[0].attention_added, block_map.blocks[0].mlp_added
    if attention is None or mlp is None:
        return False
    written: list[Tensor] = []

    def silence(_: object, __: object, output: Any) -> Any:
        return block_map.as_output(attention, torch.zeros_like(first(output)))

    def note(_: object, __: object, output: Any) -> None:
        written.append(first(output).clone())

    with mlp.register_forward_hook(note), attention.register_forward_hook(silence):
        run()
    return torch.equal(written[0], first(seen.outputs[mlp]))


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two results agree as well as computing in `dtype` allows, relative to the largest entry."""
    tolerance = max(8 * torch.finfo(dtype).eps, 1e-5)
    scale = expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return bool((actual - expected).abs().max() <= tolerance * scale)
