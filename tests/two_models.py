"""A small sweep of crosscoders over two models, and both models with nothing of ours."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sae_sweep.analyses.session.finished import FinishedSae, finished_saes
from sae_sweep.data.tokens import open_tokens
from sae_sweep.launch.local import run_sweep
from sae_sweep.model.load import load_tokenizer
from tests.evaluation.definitions import PlainModel, counted
from tests.evaluation.groups import planned, small
from tests.evaluation.texts import as_expected

LAYER, BATCH, STEPS = 1, 48, 60
SPECIAL, BOS = {0, 1, 2}, 1
MEMBERS = {
    "topk": ("sae=topk", "sae.k=5", "sae.input_scale=sqrt_d", "evaluation.later_sites=1"),
    "batchtopk": ("sae=batchtopk", "sae.k=5", "sae.input_scale=sqrt_d", "sae.centre=true"),
    "april": ("sae=standard_april", "sae.l1=0.1", "sae.input_scale=unit"),
}


def overrides(output: Path, first: Path, second: Path) -> list[str]:
    """Of every member, on text that the first expects."""
    text = output / "text.jsonl"
    if not text.exists():
        as_expected(text, first)
    return [
        *small(output, first, text),
        *(f"site.models=[{first},{second}]", f"site.layer={LAYER}", f"training.batch_size={BATCH}"),
        *(f"training.tokens={BATCH * STEPS}", "training.lr=5e-3", "evaluation.tokens=320"),
    ]


def trained(output: Path, first: Path, second: Path) -> Mapping[str, FinishedSae]:
    """The members, by name."""
    made = planned(overrides(output, first, second), MEMBERS)
    assert {one.state for one in run_sweep(list(made.configs.values()))} == {"finished"}
    found = {one.label: one for one in finished_saes(made.folder.root)}
    return {name: found[made.label(name)] for name in MEMBERS}


class PlainPair:
    """Both models of a member in float64, and the held-out rows of its sweep."""

    def __init__(self, sae: FinishedSae, *folders: Path) -> None:
        self.models = [PlainModel("llama", folder) for folder in folders]
        config = sae.member.config
        tokens = open_tokens(config.data, config.evaluation.tokens, load_tokenizer(config.model), 300)
        self.rows = list(torch.from_numpy(tokens.heldout).long())

    def counted(self, row_T: Tensor) -> list[int]:
        """Positions that count."""
        return counted(row_T.tolist(), SPECIAL, BOS)

    def activations(self, row_T: Tensor) -> list[Tensor]:
        """[T, d] of each model after the block."""
        return [model.activation("resid_post", LAYER, row_T) for model in self.models]
