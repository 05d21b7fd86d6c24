"""`torch.autograd.grad` without torch's engine, which asks for the accelerator that a CPU build of torch has not."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    **_: Any,
) -> tuple[Tensor | None, ...]:
    """The gradients of the inputs, by walking the graph from the outputs, each node after all that depend on it."""
    outputs, inputs = _several(outputs), _several(inputs)
    given = [torch.ones_like(output) for output in outputs] if grad_outputs is None else _several(grad_outputs)
    arrived: dict[Any, dict[int, Tensor]] = {}
    for output, pulled in zip(outputs, given, strict=True):
        arrived.setdefault(output.grad_fn, {})[output.output_nr] = pulled
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        for node in _in_order([output.grad_fn for output in outputs]):
            own = arrived.pop(node, None)
            if own is None:
                continue
            if hasattr(node, "variable"):
                found[id(node.variable)] = own[0]
                continue
            for (following, number), gradient in _ways(node, _pulled(node, own)):
                if gradient is not None:
                    _add(arrived.setdefault(following, {}), number, _fitted(gradient, following, number))
    return tuple(found.get(id(one)) for one in inputs)


def _several(tensors: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _in_order(roots: Sequence[Any]) -> list[Any]:
    """The nodes of a graph, each before those that it leads to."""
    order, seen = [], set()
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        stack = [(root, iter(root.next_functions))]
        while stack:
            node, ways = stack[-1]
            following = next((way for way, _ in ways if way is not None and way not in seen), None)
            if following is None:
                order.append(node)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(following.next_functions)))
    return order[::-1]


def _pulled(node: Any, own: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
    """What a node makes of the gradients of its outputs; those that did not arrive are 0."""
    metadata = node._input_metadata
    gradients = [
        own[i] if i in own else torch.zeros(one.shape, dtype=one.dtype, device=one.device)
        for i, one in enumerate(metadata)
    ]
    ours = isinstance(node, torch.autograd.function.BackwardCFunction)
    pulled = node.apply(*gradients) if ours else node(*gradients)
    return pulled if isinstance(pulled, tuple) else (pulled,)


def _ways(node: Any, pulled: Sequence[Tensor | None]) -> list[tuple[tuple[Any, int], Tensor | None]]:
    """Where a node leads to, and with which gradient. A function of ours gives one for each argument, and leads to
    those alone that are tensors."""
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        pulled = [gradient for gradient, needed in zip(pulled, node.needs_input_grad, strict=True) if needed]
        return list(zip([way for way in node.next_functions if way[0] is not None], pulled, strict=True))
    return [each for each in zip(node.next_functions, pulled, strict=False) if each[0][0] is not None]


def _fitted(gradient: Tensor, node: Any, number: int) -> Tensor:
    """A gradient in the shape of what it is of, which may have been broadcast."""
    shape = node.variable.shape if hasattr(node, "variable") else node._input_metadata[number].shape
    return gradient if gradient.shape == shape else gradient.sum_to_size(shape)


def _add(gradients: dict[int, Tensor], number: int, gradient: Tensor) -> None:
    gradients[number] = gradient if number not in gradients else gradients[number] + gradient
