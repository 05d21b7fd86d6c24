"""Does another library read what was exported for it? Run it where that library is installed:

    .venv-dictionary/bin/python scripts/check_exported.py dictionary_learning FOLDER

Or `sparsify` in .venv-sparsify, `circuit-tracer` in .venv-circuit. Each folder in FOLDER is what `sae-sweep export`
wrote, and beside it `<name>.safetensors` has activations `x` [B, D] and the `reconstruction` that they should get. A
line for each says how far the library's is from that, as a share of the largest number. Exit codes: 0 all agree to
1e-5, 1 some do not, 2 nothing to check.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

TOLERANCE = 1e-5
Reads = Callable[[Path], Callable[[Tensor], Tensor]]
"""Reconstructions by what the library loads from a folder."""


def dictionary_learning(folder: Path) -> Callable[[Tensor], Tensor]:
    from dictionary_learning.utils import load_dictionary  # type: ignore[import-not-found]

    found: Callable[[Tensor], Tensor] = load_dictionary(str(folder), "cpu")[0]
    return found


def sparsify(folder: Path) -> Callable[[Tensor], Tensor]:
    from sparsify.sparse_coder import SparseCoder  # type: ignore[import-not-found]

    coder = SparseCoder.load_from_disk(folder)
    return lambda x_BD: coder(x_BD).sae_out


def circuit_tracer(folder: Path) -> Callable[[Tensor], Tensor]:
    from circuit_tracer.transcoder.single_layer_transcoder import (  # type: ignore[import-not-found]
        load_relu_transcoder,
    )

    lazy: dict[str, Any] = {"lazy_encoder": False, "lazy_decoder": False, "device": torch.device("cpu")}
    if (folder / "W_enc_0.safetensors").exists():
        return circuit_tracer_layers(folder, lazy)
    (file,) = folder.glob("layer_*.safetensors")
    found: Callable[[Tensor], Tensor] = load_relu_transcoder(str(file), 0, **lazy)
    return found


def circuit_tracer_layers(folder: Path, lazy: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """A cross-layer transcoder: its layers lie side by side in ours, and one after the other in theirs."""
    from circuit_tracer.transcoder.cross_layer_transcoder import load_clt  # type: ignore[import-not-found]

    clt = load_clt(str(folder), dtype=torch.float32, **lazy)
    return lambda x_BD: torch.cat(list(clt(torch.stack(x_BD.chunk(clt.n_layers, dim=1)))), dim=1)


PEERS: dict[str, Reads] = {
    "dictionary_learning": dictionary_learning,
    "sparsify": sparsify,
    "circuit-tracer": circuit_tracer,
}


@torch.no_grad()
def main(peer: str, root: Path) -> int:
    """Compare all of them."""
    folders = sorted(each for each in root.iterdir() if each.is_dir())
    worst = 0.0
    for folder in folders:
        check = load_file(root / f"{folder.name}.safetensors")
        difference = (PEERS[peer](folder)(check["x"]) - check["reconstruction"]).abs().max()
        share = float(difference / check["reconstruction"].abs().max())
        worst = share if not share <= worst else worst  # NaN is the worst
        print(f"{folder.name:<24} {share:.2e} {'agrees' if share <= TOLERANCE else 'DISAGREES'}")
    if not folders:
        return 2
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
