"""Folders for SAEBench: SAELens's, and beside them what is known already under the names of its core evaluation.

    sae_bench_core.json  {"eval_result_metrics": {group: {name: value}}}; what is not known stays out: l2_ratio is a
                         mean of ratios over tokens, which none of our sums gives

It asks for decoder rows of unit norm, which all members have.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweep.folder.files import write_json_atomic
from sae_sweep.interop import saelens
from sae_sweep.saes.inference import InferenceSae

CORE = "sae_bench_core.json"
NAMES = {
    "model_behavior_preservation": {"kl_div_with_sae": "kl", "kl_div_with_ablation": "kl_zero"},
    "model_performance_preservation": {
        "ce_loss_score": "ce_recovered",
        "ce_loss_with_sae": "ce_sae",
        "ce_loss_without_sae": "ce_clean",
        "ce_loss_with_ablation": "ce_zero",
    },
    "reconstruction_quality": {"explained_variance": "explained_variance", "mse": "mse", "cossim": "cosine"},
    "shrinkage": {"relative_reconstruction_bias": "gamma"},
    "sparsity": {"l0": "l0", "l1": "l1"},
    "token_stats": {"total_tokens_eval_reconstruction": "tokens_evaluated"},
    "misc_metrics": {
        "freq_over_1_percent": "density_over_1pct",
        "freq_over_10_percent": "density_over_10pct",
        "frac_alive": "alive",
    },
}
"""Their metrics by group, and what ours are called."""


def recognise(folder: Path) -> bool:
    """Never: what `write` writes is SAELens's."""
    return False


def write(
    folder: Path, sae: InferenceSae, metadata: Mapping[str, Any], frequency_F: Tensor | None, dtype: torch.dtype
) -> None:
    """Write a folder that SAEBench loads. `metrics` in the metadata are those of metrics.json. Raises ValueError for
    what SAELens has no architecture of."""
    saelens.check_theirs(sae)
    kept = {key: value for key, value in metadata.items() if key != "metrics"}
    saelens.write(folder, sae, kept, frequency_F, dtype)
    core = core_metrics(metadata.get("metrics") or {}, sae)
    write_json_atomic(folder / CORE, {"eval_type_id": "core", "eval_result_metrics": core})


def core_metrics(metrics: Mapping[str, Any], sae: InferenceSae) -> dict[str, dict[str, float]]:
    """The metrics of SAEBench's core evaluation that ours say, by its groups."""
    m = {key: float(value) for key, value in metrics.items() if isinstance(value, int | float)}
    found = {
        group: {theirs: m[ours] for theirs, ours in entries.items() if ours in m} for group, entries in NAMES.items()
    }
    if m.get("kl_zero") and "kl" in m:
        found["model_behavior_preservation"]["kl_div_score"] = (m["kl_zero"] - m["kl"]) / m["kl_zero"]
    found["misc_metrics"]["average_max_decoder_cosine_sim"] = _largest_cosine(sae.tensors["W_dec"])
    return {group: values for group, values in found.items() if values}


def _largest_cosine(W_dec: Tensor) -> float:
    """The mean, over latents, of the largest cosine of a decoder row with another one."""
    unit_FD = torch.nn.functional.normalize(W_dec.double(), dim=1)
    largest = []
    for first, rows_bD in enumerate(unit_FD.split(1024)):
        cosine_bF = rows_bD @ unit_FD.T
        own_b = torch.arange(len(rows_bD)) + 1024 * first
        cosine_bF[torch.arange(len(rows_bD)), own_b] = -1.0
        largest.append(cosine_bF.amax(1))
    return float(torch.cat(largest).mean())
