"""SAEs that another library trains on our model's activations, saves, and says what they are worth. Run it where that
library is installed:

    .venv-dictionary/bin/python scripts/train_elsewhere.py dictionary_learning MODEL_FOLDER ROWS.npz FOLDER

Or `sparsify` in .venv-sparsify, `sae-lens` in .venv-interop. ROWS.npz has `tokens` [R, T], of which the first `heldout`
rows are judged and the others trained on. For each SAE there is a folder as the library writes it, beside it
`<name>.safetensors` (activations `x`, the library's `reconstruction` of them), and in answers.json what the library's
own module gives in the same transformers model: L0, squared error, cross-entropy with and without it. It is spliced at
every position; averages are over positions that are no special token and not the first of a row.
"""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

LAYER, SPECIAL = 2, 0
"""The block whose output is read, and the one special id of the model that ships."""
STEPS, BATCH, WIDTH, K = 300, 256, 512, 16
Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Codes [B, F] and reconstructions [B, D] of activations [B, D], by the library's own module."""


class Site:
    """The output of a block of a model of transformers."""

    def __init__(self, folder: str) -> None:
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self._model = cast(Any, loaded).eval()
        self._block = self._model.model.layers[LAYER]

    @torch.no_grad()
    def run(self, rows_RT: Tensor, change: Callable[[Tensor], Tensor] = lambda x: x) -> tuple[Tensor, Tensor]:
        """The activations [R, T, D], and the cross-entropy [R, T - 1] of the next tokens with them changed."""
        seen = list[Tensor]()

        def hook(module: Any, inputs: Any, output: Any) -> Any:
            x_RTD = output[0] if isinstance(output, tuple) else output
            seen.append(x_RTD)
            changed_RTD = change(x_RTD)
            return (changed_RTD, *output[1:]) if isinstance(output, tuple) else changed_RTD

        with self._block.register_forward_hook(hook):
            logits_RTV = self._model(input_ids=rows_RT, use_cache=False).logits[:, :-1].double()
        return seen[0], torch.nn.functional.cross_entropy(logits_RTV.transpose(1, 2), rows_RT[:, 1:], reduction="none")


def answers(site: Site, rows_RT: Tensor, forward: Forward) -> tuple[dict[str, float], dict[str, Tensor]]:
    """What an SAE is worth on held-out rows, and some activations with their reconstructions."""
    counted_RT = rows_RT != SPECIAL
    counted_RT[:, 0] = False
    target_RT = counted_RT[:, :-1] & (rows_RT[:, 1:] != SPECIAL)

    def spliced(x_RTD: Tensor) -> Tensor:
        return forward(x_RTD.flatten(0, 1))[1].view_as(x_RTD)

    x_RTD, clean_RT = site.run(rows_RT)
    sae_RT, x_BD = site.run(rows_RT, spliced)[1], x_RTD[counted_RT]
    with torch.no_grad():
        f_BF, x_hat_BD = forward(x_BD)
    found = {
        "l0": float((f_BF > 0).double().sum(1).mean()),
        "mse": float((x_BD - x_hat_BD).double().square().sum(1).mean()),
        "ce_clean": float(clean_RT[target_RT].mean()),
        "ce_sae": float(sae_RT[target_RT].mean()),
        "tokens": int(counted_RT.sum()),
    }
    return found, {"x": x_BD[:400].contiguous(), "reconstruction": x_hat_BD[:400].contiguous()}


def batches(site: Site, rows_RT: Tensor) -> Iterator[Tensor]:
    """[BATCH, D] each, without end."""
    x_ND = site.run(rows_RT)[0][rows_RT != SPECIAL]
    x_ND = x_ND[torch.randperm(len(x_ND), generator=torch.Generator().manual_seed(0))]
    for part_BD in cycle(x_ND.split(BATCH)):
        if len(part_BD) == BATCH:
            yield part_BD.clone()


def dictionary_learning(data: Iterator[Tensor], d: int, out: Path) -> dict[str, Forward]:
    """By its `trainSAE`, one stream for all; activations are scaled, which it folds into biases when it saves."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer  # type: ignore[import-not-found]
    from dictionary_learning.trainers.gdm import GatedSAETrainer  # type: ignore[import-not-found]
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer  # type: ignore[import-not-found]
    from dictionary_learning.trainers.matryoshka_batch_top_k import (  # type: ignore[import-not-found]
        MatryoshkaBatchTopKTrainer,
    )
    from dictionary_learning.trainers.standard import (  # type: ignore[import-not-found]
        StandardTrainer,
        StandardTrainerAprilUpdate,
    )
    from dictionary_learning.trainers.top_k import TopKTrainer  # type: ignore[import-not-found]
    from dictionary_learning.training import trainSAE  # type: ignore[import-not-found]
    from dictionary_learning.utils import load_dictionary  # type: ignore[import-not-found]

    common = {"steps": STEPS, "activation_dim": d, "dict_size": WIDTH, "layer": LAYER, "lm_name": "demo", "seed": 0}
    common |= {"lr": 3e-3, "warmup_steps": 10, "device": "cpu", "submodule_name": f"resid_post_layer_{LAYER}"}
    warm, late = {"sparsity_warmup_steps": 50}, {"k": K, "threshold_start_step": STEPS // 3}
    trainers = {
        "standard": {"trainer": StandardTrainer, "l1_penalty": 0.05, **warm},
        "april": {"trainer": StandardTrainerAprilUpdate, "l1_penalty": 0.05, **warm},
        "gated": {"trainer": GatedSAETrainer, "l1_penalty": 0.05, **warm},
        "jumprelu": {"trainer": JumpReluTrainer, "target_l0": K, **warm},
        "topk": {"trainer": TopKTrainer, **late},
        "batchtopk": {"trainer": BatchTopKTrainer, **late},
        "matryoshka": {"trainer": MatryoshkaBatchTopKTrainer, "group_fractions": [0.25, 0.75], **late},
    }
    configs = [{**common, **own} for own in trainers.values()]
    trainSAE(data, configs, STEPS, save_dir=str(out), normalize_activations=True, device="cpu")
    found: dict[str, Forward] = {}
    for index, name in enumerate(trainers):
        (out / f"trainer_{index}").rename(out / name)
        dictionary = load_dictionary(str(out / name), "cpu")[0]
        found[name] = partial(_dictionary, dictionary)
    return found


def _dictionary(own: Any, x_BD: Tensor) -> tuple[Tensor, Tensor]:
    x_hat_BD, f_BF = own(x_BD, output_features=True)
    return f_BF, x_hat_BD


def _sae(own: Any, x_BD: Tensor) -> tuple[Tensor, Tensor]:
    return own.encode(x_BD), own(x_BD)


def sparsify(data: Iterator[Tensor], d: int, out: Path) -> dict[str, Forward]:
    """Its `SparseCoder`s by its loss: an SAE, and a transcoder with a skip that gives what it reads."""
    from sparsify.config import SparseCoderConfig  # type: ignore[import-not-found]
    from sparsify.sparse_coder import SparseCoder  # type: ignore[import-not-found]

    found: dict[str, Forward] = {}
    kinds = {"sae": {}, "skip": {"transcode": True, "skip_connection": True}}
    for name, options in kinds.items():
        torch.manual_seed(0)
        coder = SparseCoder(d, SparseCoderConfig(num_latents=WIDTH, k=K, **options), "cpu", torch.float32)
        optimizer = torch.optim.Adam(coder.parameters(), lr=3e-3)
        for _ in range(STEPS):
            coder(next(data)).fvu.backward()
            coder.remove_gradient_parallel_to_decoder_directions()
            optimizer.step()
            optimizer.zero_grad()
            if not options:
                coder.set_decoder_norm_to_unit_norm()
        coder.save_to_disk(out / name)
        coder = SparseCoder.load_from_disk(out / name)

        def forward(x_BD: Tensor, own: Any = coder) -> tuple[Tensor, Tensor]:
            made = own(x_BD)
            return torch.zeros(len(x_BD), WIDTH).scatter(1, made.latent_indices, made.latent_acts), made.sae_out

        found[name] = forward
    return found


def sae_lens(data: Iterator[Tensor], d: int, out: Path) -> dict[str, Forward]:
    """By its `SAETrainer`, saved as its runner saves at the end."""
    from sae_lens import SAE  # type: ignore[import-not-found]
    from sae_lens.config import LoggingConfig, SAETrainerConfig  # type: ignore[import-not-found]
    from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY  # type: ignore[import-not-found]
    from sae_lens.training.sae_trainer import SAETrainer  # type: ignore[import-not-found]

    own: dict[str, dict[str, Any]] = {
        "standard": {"l1_coefficient": 5.0},
        "gated": {"l1_coefficient": 5.0},
        "jumprelu": {"l0_coefficient": 5.0},
        "topk": {"k": K},
        "batchtopk": {"k": K},
        "matryoshka_batchtopk": {"k": K, "matryoshka_widths": [WIDTH // 4, WIDTH]},
    }
    found: dict[str, Forward] = {}
    for name, options in own.items():
        torch.manual_seed(0)
        cls, config = SAE_TRAINING_CLASS_REGISTRY[name]
        trained = cls(config(d_in=d, d_sae=WIDTH, device="cpu", **options))
        told = SAETrainerConfig(
            total_training_samples=STEPS * BATCH,
            train_batch_size_samples=BATCH,
            lr=3e-3,
            lr_end=3e-4,
            device="cpu",
            autocast=False,
            logger=LoggingConfig(log_to_wandb=False),
        )
        SAETrainer(cfg=told, sae=trained, data_provider=data).fit()
        trained.save_inference_model(out / name)
        sae = SAE.load_from_disk(out / name, device="cpu")
        found[name] = partial(_sae, sae)
    return found


PEERS = {"dictionary_learning": dictionary_learning, "sparsify": sparsify, "sae-lens": sae_lens}


def main(peer: str, model: str, rows: str, folder: str) -> None:
    """Train, save and judge all SAEs of one library."""
    torch.set_num_threads(1)
    site, out, read = Site(model), Path(folder), np.load(rows)
    rows_RT, heldout = torch.from_numpy(read["tokens"]).long(), int(read["heldout"])
    d = site.run(rows_RT[:1])[0].shape[-1]
    told = {}
    for name, forward in PEERS[peer](batches(site, rows_RT[heldout:]), d, out).items():
        told[name], tensors = answers(site, rows_RT[:heldout], forward)
        save_file(tensors, out / f"{name}.safetensors")
    (out / "answers.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
