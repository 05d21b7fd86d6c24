"""Attention that stays within the documents of packed rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sae_sweep.errors import ConfigError
from sae_sweep.model.blocks import close
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.parting import Parting


@dataclass(frozen=True)
class WithinDocuments:
    """What a model is told, so that it reads each document of a row as it would alone."""

    parting: Parting
    windows: Mapping[str, int | None] | None
    """Of a model that needs a mask, how far each kind of layer looks back; others see from positions that restart where
    documents begin. Of kind "" are all layers of one that has no kinds."""
    dtype: torch.dtype

    def arguments(self, tokens_RT: Tensor) -> dict[str, Any]:
        """Of a forward pass over these rows."""
        return self.of_begins(self.parting.begins(tokens_RT))

    def of_begins(self, begins_RT: Tensor) -> dict[str, Any]:
        """The same, from where documents begin, bool [R, T]."""
        place_T = torch.arange(begins_RT.shape[1], device=begins_RT.device)
        first_RT = torch.where(begins_RT, place_T, 0).cummax(1).values
        told = {"position_ids": place_T - first_RT}
        if self.windows is None:
            return told
        back_TT = place_T[:, None] - place_T
        sees_RTT = (first_RT[:, :, None] <= place_T) & (back_TT >= 0)
        masks = {kind: self._mask(sees_RTT & (back_TT < (w or len(place_T)))) for kind, w in self.windows.items()}
        return {**told, "attention_mask": masks.get("", masks)}

    def _mask(self, sees_RTT: Tensor) -> Tensor:
        """[R, 1, T, T], which is added to attention's scores."""
        mask_RTT = torch.zeros(sees_RTT.shape, dtype=self.dtype, device=sees_RTT.device)
        return mask_RTT.masked_fill_(~sees_RTT, torch.finfo(self.dtype).min)[:, None]


def within_documents(model: LanguageModel, parting: Parting | None) -> LanguageModel:
    """The same model, which attends within documents; itself where there is no parting.

    Raises ConfigError for one that does not give for a document in a row what it gives for it alone.
    """
    if parting is None:
        return model
    dtype = next(model.module.parameters()).dtype
    ways = [WithinDocuments(parting, windows, dtype) for windows in (None, _windows(model))]
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
    tokens_RT = model.probe_tokens().to(model.entrance)
    begins_RT, half = torch.zeros_like(tokens_RT, dtype=torch.bool), tokens_RT.shape[1] // 2
    begins_RT[:, [0, half]] = True
    try:
        together_RTD = _hidden(model, tokens_RT, way.of_begins(begins_RT))
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, KeyError):
        return False
    alone_RTD = torch.cat([_hidden(model, part, {}) for part in tokens_RT.split(half, dim=1)], dim=1)
    return close(together_RTD.double(), alone_RTD.double(), alone_RTD.dtype)


def _windows(model: LanguageModel) -> dict[str, int | None]:
    """How far layers look back, by their kind."""
    settings = model.module.config.get_text_config()  # type: ignore[operator, union-attr]
    window, kinds = getattr(settings, "sliding_window", None), getattr(settings, "layer_types", None)
    return {kind: None if kind == "full_attention" else window for kind in kinds or [""]}


def _hidden(model: LanguageModel, tokens_RT: Tensor, told: Mapping[str, Any]) -> Tensor:
    hidden: Tensor = model.backbone(input_ids=tokens_RT, use_cache=False, **told).last_hidden_state
    return hidden
