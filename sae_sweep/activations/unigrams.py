"""What the model gives for each token by itself: the first rows of a lookup table (arXiv 2502.17332)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.activations.finite import check_finite
from sae_sweep.activations.stream import Harvest
from sae_sweep.model.language_model import LanguageModel

TOKENS_AT_ONCE = 1_024


@torch.no_grad()
def unigram_activations(model: LanguageModel, hooks: Sequence[str], harvest: Harvest) -> dict[str, Tensor]:
    """[V, d] by hook, on the model's device: activations at the last position of the prompts [BOS, t].

    All V ids of the model's vocabulary. Where there is no BOS the prompt is [t, t]: what a model gives for the first
    position of a row is the same huge vector whatever the token (an attention sink).
    """
    tokenizer = model.tokenizer
    bos_id = tokenizer.bos_token_id if tokenizer is not None else None
    parts: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    for ids_B in torch.arange(model.facts.vocab_size, device=model.device).split(TOKENS_AT_ONCE):
        first_B = ids_B if bos_id is None else torch.full_like(ids_B, bos_id)
        prompts = torch.stack([first_B, ids_B], dim=1)
        for hook, x_BTd in harvest(model, prompts, tuple(hooks)).items():
            parts[hook].append(x_BTd[:, -1].clone())
    tables = {hook: torch.cat(own) for hook, own in parts.items()}
    for hook, x_VD in tables.items():
        check_finite(x_VD, hook, "single tokens, which sae.lookup begins with")
    return tables
