"""Attention that stays within the documents of packed rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sae_sweep.data.parting import Parting
from sae_sweep.errors import ConfigError
from sae_sweep.model.blocks import close
from sae_sweep.model.language_model import LanguageModel


@dataclass(frozen=True)
class WithinDocuments:
    """What a model is told, so that it reads each document of a row as it would alone."""

    parting: Parting
    masked: bool
    """Whether it needs the mask: others see from positions that restart where documents begin."""
    dtype: torch.dtype

    def arguments(self, tokens_RT: Tensor) -> dict[str, Tensor]:
        """Of a forward pass over these rows."""
        return self.of_begins(self.parting.begins(tokens_RT))

    def of_begins(self, begins_RT: Tensor) -> dict[str, Tensor]:
        """The same, from where documents begin, bool [R, T]."""
        place_T = torch.arange(begins_RT.shape[1], device=begins_RT.device)
        first_RT = torch.where(begins_RT, place_T, 0).cummax(1).values
        told = {"position_ids": place_T - first_RT}
        if not self.masked:
            return told
        sees_RTT = (first_RT[:, :, None] <= place_T) & (place_T <= place_T[:, None])
        mask_RTT = torch.zeros(sees_RTT.shape, dtype=self.dtype, device=begins_RT.device)
        mask_RTT.masked_fill_(~sees_RTT, torch.finfo(self.dtype).min)
        return {**told, "attention_mask": mask_RTT[:, None]}


def within_documents(model: LanguageModel, parting: Parting | None) -> LanguageModel:
    """The same model, which attends within documents; itself where there is no parting.

    Raises ConfigError for one that does not give for a document in a row what it gives for it alone.
    """
    if parting is None:
        return model
    dtype = next(model.module.parameters()).dtype
    ways = [WithinDocuments(parting, masked, dtype) for masked in (False, True)]
    found = next((way for way in ways if _reads_each_alone(model, way)), None)
    if found is None:
        raise ConfigError(
            f"data.attention=document: {type(model.module).__name__} lets what it makes of a token depend on documents"
            " before it; take data.packing=document, or data.attention=row"
        )
    return replace(model, within=found)


@torch.no_grad()
def _reads_each_alone(model: LanguageModel, way: WithinDocuments) -> bool:
    """Whether two documents in a row give what each gives alone."""
    settings = model.module.config.get_text_config()  # type: ignore[operator, union-attr]
    if model.bridge is not None or (way.masked and getattr(settings, "sliding_window", None)):
        return False  # one mask for all layers would widen their windows
    tokens_RT = model.probe_tokens()
    begins_RT, half = torch.zeros_like(tokens_RT, dtype=torch.bool), tokens_RT.shape[1] // 2
    begins_RT[:, [0, half]] = True
    try:
        together_RTD = _hidden(model, tokens_RT, way.of_begins(begins_RT))
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    alone_RTD = torch.cat([_hidden(model, part, {}) for part in tokens_RT.split(half, dim=1)], dim=1)
    return close(together_RTD.double(), alone_RTD.double(), alone_RTD.dtype)


def _hidden(model: LanguageModel, tokens_RT: Tensor, told: Mapping[str, Any]) -> Tensor:
    hidden: Tensor = model.backbone(input_ids=tokens_RT, use_cache=False, **told).last_hidden_state
    return hidden
