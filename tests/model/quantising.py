"""What stands for bitsandbytes where it is not installed: the matrices of blocks are rounded as they are loaded."""

from typing import Any

import pytest
from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

LEVELS = {"load_in_8bit": 127, "load_in_4bit": 7}
"""On each side of 0, of a row's largest number."""


@register_quantization_config("rounding")
class RoundingConfig(QuantizationConfigMixin):
    def __init__(self, levels: int = 127, **_: Any) -> None:
        self.quant_method, self.levels = "rounding", levels


@register_quantizer("rounding")
class Rounding(HfQuantizer):
    requires_calibration = False

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> Any:
        return model

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        for part in model.get_decoder().modules():
            if isinstance(part, nn.Linear):
                step_O1 = part.weight.data.abs().amax(1, keepdim=True) / self.quantization_config.levels
                part.weight.data.div_(step_O1).round_().mul_(step_O1)
        return model

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return False


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """While the patch lasts, transformers is told of this quantiser."""

    def asked(**how: Any) -> RoundingConfig:
        return RoundingConfig(next(levels for key, levels in LEVELS.items() if key in how))

    patch.setattr("sae_sweep.model.quantised.find_spec", lambda name: name)
    patch.setattr("sae_sweep.model.quantised._check_device", lambda *_: None)
    patch.setattr("transformers.BitsAndBytesConfig", asked)
