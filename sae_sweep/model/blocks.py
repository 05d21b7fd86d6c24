"""The blocks of a Hugging Face causal language model, and the parts of each that sites are named after."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sae_sweep.errors import ConfigError


@dataclass(frozen=True)
class Router:
    """What gives each expert its share of a token. Its logits are what a linear layer in it gives, or one of what it
    returns itself."""

    module: nn.Module
    linear: nn.Linear | None
    index: int = 0
    """Of the logits in what `module` returns, where there is no `linear`."""


@dataclass(frozen=True)
class Block:
    """One block and its parts, None where it has none that is known.

    `added` is the module whose output is added to the residual: the part itself, the norm after it, or the linear
    layer that ends it. `projection` is that layer.
    """

    module: nn.Module
    attention: nn.Module | None
    """Or what mixes positions in its place."""
    attention_projection: nn.Module | None
    attention_added: nn.Module | None
    mlp: nn.Module | None
    """What reads the site mlp_in."""
    mlp_projection: nn.Module | None
    mlp_added: nn.Module | None
    attends: bool = True
    """Whether `attention` is one: a state-space layer or a convolution is none."""
    experts: nn.Module | None = None
    router: Router | None = None
    plain: bool = False
    """The sum of the block's input and what attention and the MLP add is what the block gives, or makes that of."""
    parallel: bool = False
    """The MLP reads the residual from before attention, so that there is no resid_mid."""
    direct: frozenset[nn.Module] = frozenset()
    """Of attention and MLP, those that give what their projection does."""


@dataclass(frozen=True)
class BlockMap:
    """The blocks in order, and the forms of what their modules take and give."""

    blocks: tuple[Block, ...]
    lengths: Mapping[nn.Module, int] = field(default_factory=dict)
    """Of the modules that return a tuple, its length."""
    flat: frozenset[tuple[nn.Module, bool]] = frozenset()
    """Modules that are given (True) or give (False) all positions of all rows end to end, [R * T, d]."""

    single: bool = True
    """Whether blocks are given one residual stream, [R, T, d]."""

    def as_output(self, module: nn.Module, value: Tensor) -> Any:
        """`value` [R, T, d] in the form this module returns: itself, end to end, or the first of a tuple."""
        value = value.flatten(0, 1) if (module, False) in self.flat else value
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


def input_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The hidden states a block or projection was called with."""
    value = args[0] if args else kwargs.get("hidden_states")
    if not isinstance(value, Tensor):
        raise ConfigError("model.path: not supported: a block or projection is not called with hidden states")
    return value


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two results agree as well as computing in `dtype` allows, relative to the largest entry."""
    tolerance = max(8 * torch.finfo(dtype).eps, 1e-5)
    scale = expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return bool((actual - expected).abs().max() <= tolerance * scale)
