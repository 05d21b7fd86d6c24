"""The command as one of several ranks, to which memory is refused at moments of its own: by place and block, so often.

RANK=1 ... python -m tests.e2e.refused_rank '{"harvest": {"1": 1}}' [arguments of the command]
"""

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch

from sae_sweep.activations.outliers import Guard
from sae_sweep.activations.stream import ActivationStream
from sae_sweep.cli import main
from sae_sweep.evaluation.language_model import LanguageModelEvaluator
from sae_sweep.training.devices import gathering
from sae_sweep.training.step.trainer import BankTrainer


def _step(trainer: BankTrainer, chunk: Any, *_: Any) -> int:
    return trainer.members[chunk.first].blocks - 1


def _in_thread(_: Any, block: Any) -> int:
    return -1 if threading.current_thread() is threading.main_thread() else int(block.index)


PLACES: dict[str, tuple[Any, str, Callable[..., int]]] = {
    "before they meet": (ActivationStream, "_whole_block", lambda stream, index: index),
    "harvest": (ActivationStream, "_gather", lambda stream, rows, hooks: rows.index),
    "room": (gathering._Room, "__init__", lambda room, ranks, rows, *_, **__: rows.index),
    "after they met": (Guard, "told", lambda guard, block: block.index),
    "made ahead": (Guard, "told", _in_thread),
    "step": (BankTrainer, "_step", _step),
    "judging": (LanguageModelEvaluator, "evaluate", lambda evaluator, saes, done: min(len(saes), 2)),
}
"""Where, and how the block is known that it is for; of judging, whether members are judged together (2) or alone."""


def refuse(place: str, times: dict[str, int]) -> None:
    """Let a place raise, before it does anything, so often for each block."""
    owner, name, block_of = PLACES[place]
    real = getattr(owner, name)

    def refusing(*given: Any, **keys: Any) -> Any:
        block = str(block_of(*given, **keys))
        if times.get(block, 0):
            times[block] -= 1
            print("REFUSED", place, block, file=sys.stderr, flush=True)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 bytes.")
        return real(*given, **keys)

    setattr(owner, name, refusing)


if __name__ == "__main__":
    for each, of_block in json.loads(sys.argv[1]).items():
        refuse(each, of_block)
    sys.exit(main(sys.argv[2:]))
