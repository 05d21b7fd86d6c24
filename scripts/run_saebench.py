"""SAEBench's own core evaluation of one member on our tokens. Run it where it is installed:

    .venv-saebench/bin/python scripts/run_saebench.py EXPORTED MODEL_FOLDER ROWS.npz BATCH OUT.json

EXPORTED is what `sae-sweep export --format saebench` wrote, MODEL_FOLDER a model of transformers with its tokenizer.
ROWS.npz has `tokens` [R, T], which take the place of its store of activations, in batches of BATCH rows. OUT.json is
the result file that it writes.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_bench.evals.core import main as core  # type: ignore[import-not-found]
from sae_bench.evals.core.eval_config import CoreEvalConfig  # type: ignore[import-not-found]
from sae_bench.sae_bench_utils import general_utils  # type: ignore[import-not-found]
from sae_lens import SAE  # type: ignore[import-not-found]
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer


class Store:
    """Rows of tokens, batch by batch, from the first again when it is reset: what it asks of a store."""

    def __init__(self, tokens_RT: torch.Tensor, batch: int) -> None:
        self._tokens_RT, self._next = tokens_RT, 0
        self.context_size, self.store_batch_size_prompts = tokens_RT.shape[1], batch

    def get_batch_tokens(self, rows: int) -> torch.Tensor:
        found = self._tokens_RT[self._next : self._next + rows]
        self._next += rows
        return found

    def reset_input_dataset(self) -> None:
        self._next = 0


def loaded(folder: str) -> Any:
    """The model with the hooks of TransformerLens, nothing in it changed."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return TransformerBridge.boot_transformers(
        folder, device="cpu", dtype=torch.float32, tokenizer=tokenizer, hf_model=model
    )


def main(exported: str, model: str, rows: str, batch: str, out: str) -> None:
    """Write what it finds."""
    torch.set_num_threads(1)
    tokens_RT = torch.from_numpy(np.load(rows)["tokens"]).long()
    sae = SAE.load_from_disk(exported, device="cpu")
    named, sae, _ = general_utils.load_and_format_sae("mine", sae, "cpu")
    batches = len(tokens_RT) // int(batch)
    asked = CoreEvalConfig(
        batch_size_prompts=int(batch),
        n_eval_reconstruction_batches=batches,
        n_eval_sparsity_variance_batches=batches,
        exclude_special_tokens_from_reconstruction=True,
        context_size=tokens_RT.shape[1],
        compute_kl=True,
        compute_ce_loss=True,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
    )
    bridge = loaded(model)
    special = {bridge.tokenizer.pad_token_id, bridge.tokenizer.eos_token_id, bridge.tokenizer.bos_token_id} - {None}
    metrics, features = core.run_evals(sae, Store(tokens_RT, int(batch)), bridge, asked, ignore_tokens=special)
    metrics["misc_metrics"] = core.calculate_misc_metrics(features)
    result = {"eval_cfg": asked, "metrics": metrics, "feature_metrics": features, "sae_id": named, "sae_set": "mine"}
    core.save_single_eval_result(result, "id", "none", "none", out, sae)


def valid(file: str) -> None:
    """Raise an error where a result file is none of its."""
    from sae_bench.evals.core.eval_output import CoreEvalOutput  # type: ignore[import-not-found]

    CoreEvalOutput(**json.loads(Path(file).read_text(encoding="utf-8")))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        valid(sys.argv[1])
    else:
        main(*sys.argv[1:])
