"""The worker's end of the line protocol between `scripts/bench/step.py` and a peer in its own environment.

A request is one JSON line on stdin, its answer one on the file descriptor that the worker's argument names (libraries
print on stdout). `{"do": "open", ...}` prepares one architecture; `{"do": "step", "batch": i, "dead_share": s}` takes
one training step and is answered by its seconds and L0; `{"cannot": reason}` answers what cannot be done. Needs torch
and safetensors, nothing of ours.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor


class Cannot(Exception):  # noqa: N818 - an answer, not a defect
    """The peer has no such architecture or setting; the message says what it lacks."""


class Peer(Protocol):
    """One architecture in one peer's own trainer."""

    def silence(self, share: float) -> None:
        """Count the first `share` of the latents as dead, and no other."""

    def step(self, x_BD: Tensor) -> Tensor:
        """One whole training step; what says how many latents fired (`l0` makes a number of it)."""

    def l0(self, fired: Tensor) -> float:
        """Latents that fired per token."""


Open = Callable[[Mapping[str, Any], Mapping[str, Tensor]], Peer]
"""(the request, our weights on its device) -> the peer. Raises Cannot."""


def serve(name: str, version: str, open_peer: Open) -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(int(sys.argv[1]), "w")

    def answer(found: Mapping[str, Any]) -> None:
        print(json.dumps(found), file=answers, flush=True)

    answer({"name": name, "version": version, "torch": torch.__version__})
    candidate: _Candidate | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "open":
                candidate = None  # the one before need not share the memory
                candidate = _Candidate(request, open_peer)
                answer({"threads": torch.get_num_threads()})
            else:
                assert candidate is not None
                answer(candidate.step(request["batch"], request["dead_share"]))
        except Cannot as reason:
            answer({"cannot": str(reason)})
        except Exception as error:
            answer({"cannot": f"{type(error).__name__}: {error}"})


class _Candidate:
    def __init__(self, request: Mapping[str, Any], open_peer: Open) -> None:
        torch.set_num_threads(request["threads"])
        self._device = torch.device(request["device"])
        folder = Path(request["folder"])
        weights = {name: t.to(self._device) for name, t in load_file(folder / "weights.safetensors").items()}
        batches = load_file(folder / "batches.safetensors")
        self._batches = [batches[str(i)].to(self._device) for i in range(len(batches))]
        self._peer = open_peer(request, weights)

    def step(self, batch: int, dead_share: float) -> dict[str, float]:
        x_BD = self._batches[batch % len(self._batches)]
        self._peer.silence(dead_share)
        self._wait()
        start = time.perf_counter()
        fired = self._peer.step(x_BD)
        self._wait()
        took = time.perf_counter() - start
        return {"seconds": took, "l0": self._peer.l0(fired)}

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
