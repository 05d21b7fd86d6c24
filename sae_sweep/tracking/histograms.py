"""How a finished member's latents are distributed, from its folder: how often they fire, and how alike they are."""

from pathlib import Path

from sae_sweep.folder.names import SPARSITY, WEIGHTS
from sae_sweep.tracking.runs import Histogram

BINS = 64
COMPARED = 512
"""Latents, evenly spaced, whose decoder rows are compared with those of all."""
LEAST_DENSITY = -8.0
"""log10 of the share of tokens at which a latent that never fires is counted."""


def histograms(folder: Path) -> dict[str, Histogram]:
    """`log10_density`: of the share of held-out tokens that a latent fires on; `decoder_cosine`: of the largest cosine
    of a decoder row with another latent's. None of what the folder has no file for."""
    import numpy as np  # what plans and messages do without
    from safetensors.numpy import load_file

    found = {}
    if (folder / SPARSITY).is_file():
        density_F = np.maximum(next(iter(load_file(folder / SPARSITY).values())).astype(np.float64), LEAST_DENSITY)
        found["log10_density"] = _histogram(density_F, LEAST_DENSITY, 0.0)
    if (folder / WEIGHTS).is_file():
        W_dec = load_file(folder / WEIGHTS)["W_dec"].astype(np.float32)
        W_dec = W_dec.reshape(len(W_dec), -1)
        W_dec = W_dec / np.maximum(np.linalg.norm(W_dec, axis=1, keepdims=True), 1e-12)
        some = np.unique(np.linspace(0, len(W_dec) - 1, min(COMPARED, len(W_dec))).astype(int))
        cosine_SF = W_dec[some] @ W_dec.T
        cosine_SF[np.arange(len(some)), some] = -1.0
        found["decoder_cosine"] = _histogram(cosine_SF.max(axis=1), -1.0, 1.0)
    return found


def _histogram(values: object, low: float, high: float) -> Histogram:
    import numpy as np

    counts, edges = np.histogram(np.clip(np.asarray(values), low, high), bins=BINS, range=(low, high))
    return Histogram(counts.tolist(), edges.tolist())
