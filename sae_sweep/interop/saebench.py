"""Folders for SAEBench: SAELens's, and beside them what is known already under the names of its core evaluation.

    sae_bench_core.json  {"eval_result_metrics": {group: {name: value}}}; what metrics.json does not say stays out

It asks for decoder rows of unit norm, which all members have. `eval --format saebench` writes its own result files,
with all of its metrics by its definitions.
"""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from time import time
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from sae_sweep import __version__
from sae_sweep.config.schema import MemberConfig
from sae_sweep.evaluation.evaluator import Evaluation
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
    "reconstruction_quality": {"cossim": "cosine"},
    "sparsity": {"l0": "l0", "l1": "l1"},
    "token_stats": {"total_tokens_eval_reconstruction": "tokens_evaluated"},
    "misc_metrics": {
        "freq_over_1_percent": "density_over_1pct",
        "freq_over_10_percent": "density_over_10pct",
        "frac_alive": "alive",
    },
}
"""Their metrics by group, and what ours are called that are defined alike."""
OWN = {
    "reconstruction_quality": ("explained_variance", "explained_variance_legacy", "mse"),
    "shrinkage": ("l2_norm_in", "l2_norm_out", "l2_ratio", "relative_reconstruction_bias"),
}
"""Those whose definition is another one, which `evaluation/core_sums.py` has."""
TOKENS = ("total_tokens_eval_reconstruction", "total_tokens_eval_sparsity_variance")
COMPUTED = (
    *("compute_kl", "compute_ce_loss", "compute_l2_norms", "compute_sparsity_metrics", "compute_variance_metrics"),
    *("compute_featurewise_density_statistics", "compute_featurewise_weight_based_metrics"),
)
UNKNOWN, UNIT = -1, 1e-3
"""What they write for a number that there is not; how far from 1 the norms of decoder rows may be."""


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
    if not bool(((sae.decoder_norms - 1).abs() < UNIT).all()):
        found["sparsity"].pop("l1", None)  # theirs leaves decoder norms out
    if m.get("kl_zero") and "kl" in m:
        found["model_behavior_preservation"]["kl_div_score"] = (m["kl_zero"] - m["kl"]) / m["kl_zero"]
    found["misc_metrics"]["average_max_decoder_cosine_sim"] = _largest_cosine(sae.tensors["W_dec"])
    return {group: values for group, values in found.items() if values}


def core_config(config: MemberConfig, positions: str, rows: int, batch: int) -> dict[str, Any]:
    """Its CoreEvalConfig, for so many rows, which are read in batches of so many."""
    data, batches = config.data, -(-rows // batch)
    return {
        "model_name": config.model.path or config.model.name,
        "llm_dtype": config.model.dtype,
        "batch_size_prompts": batch,
        "n_eval_reconstruction_batches": batches,
        "n_eval_sparsity_variance_batches": batches,
        "dataset": str(data.path or data.kind),
        "context_size": data.context,
        **dict.fromkeys(COMPUTED, True),
        "exclude_special_tokens_from_reconstruction": positions != "all",
        "verbose": False,
        "rows": rows,
    }


def core_result(
    named: tuple[str, str], sae: InferenceSae, metadata: Mapping[str, Any], found: Evaluation, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """What SAEBench writes of its core evaluation, of an SAE by the names of its sweep and its own. `asked` has its
    CoreEvalConfig, and in `rows` how many rows were read."""
    groups = core_metrics(found.metrics, sae)
    for group, names in OWN.items():
        values = {name: found.core.get(name, UNKNOWN) for name in names}
        known = {name: value if isfinite(value) else UNKNOWN for name, value in values.items()}
        groups[group] = groups.get(group, {}) | known
    groups["sparsity"].setdefault("l1", UNKNOWN)
    groups["misc_metrics"] |= _densities(found.frequency_F) | {
        "average_max_encoder_cosine_sim": _largest_cosine(sae.tensors["W_enc"].T)
    }
    tokens = asked["rows"] * asked["context_size"]
    groups["token_stats"] = dict.fromkeys(TOKENS, tokens)
    return {
        "eval_type_id": "core",
        "eval_config": {key: value for key, value in asked.items() if key != "rows"},
        "eval_id": str(uuid4()),
        "datetime_epoch_millis": int(time() * 1000),
        "eval_result_metrics": groups,
        "eval_result_details": [],
        "sae_bench_commit_hash": f"sae-sweep {__version__}",
        "sae_lens_id": named[1],
        "sae_lens_release_id": named[0],
        "sae_lens_version": saelens.FORMAT_VERSION,
        "sae_cfg_dict": saelens.saelens_config(sae, metadata),
        "eval_result_unstructured": {},
    }


def _densities(frequency_F: Tensor) -> dict[str, float]:
    """The share of all activity that latents have which fire often."""
    total = float(frequency_F.sum())
    return {
        f"normalized_freq_over_{percent}_percent": float(frequency_F[frequency_F > percent / 100].sum()) / total
        if total > 0
        else 0.0
        for percent in (1, 10)
    }


def _largest_cosine(rows_FD: Tensor) -> float:
    """The mean, over latents, of the largest cosine of a row with another one."""
    unit_FD = torch.nn.functional.normalize(rows_FD.double(), dim=1)
    largest = []
    for first, rows_bD in enumerate(unit_FD.split(1024)):
        cosine_bF = rows_bD @ unit_FD.T
        own_b = torch.arange(len(rows_bD)) + 1024 * first
        cosine_bF[torch.arange(len(rows_bD)), own_b] = -1.0
        largest.append(cosine_bF.amax(1))
    return float(torch.cat(largest).mean())
