"""A number of a row of tokens that somebody's own function makes of a model's logits, and its gradient."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweep.errors import ConfigError, one_line
from sae_sweep.model.head import head_of
from sae_sweep.model.language_model import LanguageModel

Lines = Sequence[Mapping[str, Any]]
"""What the file of prompts says of some of them, a line each."""
LOGITS = {"cpu": 2**20, "cuda": 2**28}
"""Numbers that a function is given at once: on a CPU as many as stay in cache, else a row."""
KEY = "analysis.downstream.function"


def log_probability(logits_RTV: Tensor, tokens_RT: Tensor) -> Tensor:
    """[R]: the mean log-probability of each row's tokens but its first, in nats."""
    own_RT = logits_RTV[:, :-1].gather(-1, tokens_RT[:, 1:, None])[..., 0]
    return (own_RT - logits_RTV.logsumexp(-1)[:, :-1]).mean(1)


class Score:
    """A function by import path, of the logits [R, T, V] and tokens [R, T] of some rows; one that has a parameter
    `prompts` is given what the file of prompts says of them too. It gives a number for each row."""

    def __init__(self, path: str) -> None:
        """Raises ConfigError where there is no such function."""
        self._path = path
        self._function = _imported(path)
        self._wants_prompts = "prompts" in signature(self._function).parameters

    @torch.no_grad()
    def of(self, model: LanguageModel, final_RTD: Tensor, tokens_RT: Tensor, lines: Lines | None) -> Tensor:
        """[R] float64: the numbers of rows with these final hidden states. Raises ConfigError where the function does
        not give them."""
        with head_of(model) as head:
            found = [
                self._called(
                    head(part_RTD.flatten(0, 1)).unflatten(0, part_RTD.shape[:2]), tokens_RT[rows], lines, rows
                )
                for rows, part_RTD in _parts(final_RTD, head.width)
            ]
        return torch.cat(found)

    def gradient(self, model: LanguageModel, final_RTD: Tensor, tokens_RT: Tensor, lines: Lines | None) -> Tensor:
        """[R, T, D]: the gradient of each row's number in its final hidden states. Raises ConfigError where it has
        none."""
        found = []
        with head_of(model) as head, torch.enable_grad():
            for rows, part_RTD in _parts(final_RTD, head.width):
                own_RTD = part_RTD.detach().requires_grad_()
                logits_RTV = head(own_RTD.flatten(0, 1)).unflatten(0, own_RTD.shape[:2])
                number_R = self._called(logits_RTV, tokens_RT[rows], lines, rows)
                if not number_R.requires_grad:
                    raise ConfigError(
                        f"{KEY}={self._path}: its numbers have no gradient in the logits, by which latents are chosen;"
                        " give analysis.downstream.latents=0"
                    )
                found.append(torch.autograd.grad(number_R.sum(), own_RTD)[0])
        return torch.cat(found)

    def _called(self, logits_RTV: Tensor, tokens_RT: Tensor, lines: Lines | None, rows: slice) -> Tensor:
        more = {"prompts": None if lines is None else lines[rows]} if self._wants_prompts else {}
        try:
            number_R = self._function(logits_RTV, tokens_RT, **more)
        except Exception as error:  # the user's function may raise anything; all of it is told in a line
            raise ConfigError(f"{KEY}={self._path}: {type(error).__name__}: {one_line(error)}") from error
        if not isinstance(number_R, Tensor) or number_R.shape != tokens_RT.shape[:1]:
            gave = f"shape {tuple(number_R.shape)}" if isinstance(number_R, Tensor) else type(number_R).__name__
            raise ConfigError(f"{KEY}={self._path} gave {gave}, not a tensor of one number for each row")
        if not bool(number_R.isfinite().all()):
            raise ConfigError(f"{KEY}={self._path} gave a number that is not finite")
        return number_R.double()


def _parts(final_RTD: Tensor, width: int) -> list[tuple[slice, Tensor]]:
    """Some rows at a time, and their final hidden states."""
    R, T, _ = final_RTD.shape
    step = max(1, LOGITS[final_RTD.device.type] // (T * width))
    return [(slice(first, first + step), final_RTD[first : first + step]) for first in range(0, R, step)]


def _imported(path: str) -> Callable[..., Any]:
    """The function, from an installed module or one of the folder that the command is given in."""
    module, _, name = path.partition(":")
    if not module or not name:
        raise ConfigError(f"{KEY}={path} is not module:function")
    try:
        with _from_here():
            found = getattr(import_module(module), name)
    except Exception as error:  # importing runs the user's module, which may raise anything
        raise ConfigError(f"{KEY}={path}: {type(error).__name__}: {one_line(error)}") from error
    if not callable(found):
        raise ConfigError(f"{KEY}={path} is no function")
    function: Callable[..., Any] = found
    return function


@contextmanager
def _from_here() -> Iterator[None]:
    """While this lasts, modules are looked for in the working folder too."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)
