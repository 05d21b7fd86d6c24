"""What the model gives for each token by itself: the first rows of a lookup table (arXiv 2502.17332)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.activations.stream import Harvest
from sae_sweep.model.language_model import LanguageModel

TOKENS_AT_ONCE = 1_024


@torch.no_grad()
def unigram_activations(model: LanguageModel, hooks: Sequence[str], harvest: Harvest) -> dict[str, Tensor]:
    """[V, d] by hook, on the model's device: activations at the last position of the prompts [BOS, t].

    All V ids of the model's vocabulary. Where the tokenizer has no BOS, or there is no tokenizer, the prompt is [t].
    """
    tokenizer = model.tokenizer
    bos_id = tokenizer.bos_token_id if tokenizer is not None else None
    parts: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    for ids_B in torch.arange(model.facts.vocab_size, device=model.device).split(TOKENS_AT_ONCE):
        prompts = ids_B[:, None]
        if bos_id is not None:
            prompts = torch.cat([torch.full_like(prompts, bos_id), prompts], dim=1)
        for hook, x_BTd in harvest(model, prompts, tuple(hooks)).items():
            parts[hook].append(x_BTd[:, -1].clone())
    return {hook: torch.cat(own) for hook, own in parts.items()}
