"""Models of which bitsandbytes keeps the blocks' matrices in 8 or 4 bits: `model.quantize`. No torch at its top.

8bit is LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339), 4bit is NF4 (Dettmers et al. 2023, arXiv 2305.14314), both
as the library has them. Embeddings, norms and the lm head stay in `model.dtype`, as activations do.
"""

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError, one_line

if TYPE_CHECKING:
    import torch
    from torch import nn

BYTES = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}
"""Of a number of a block's matrices; of four bits with a float32 scale for each 64."""


def check_library(config: ModelConfig) -> None:
    """Raises ConfigError where bitsandbytes is asked for and is not installed."""
    if config.quantize is not None and find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.quantize={config.quantize} needs the package bitsandbytes: pip install 'sae-sweep[bitsandbytes]'"
        )


def quantising(config: ModelConfig, device: "torch.device", dtype: "torch.dtype") -> dict[str, Any]:
    """What transformers is told as it loads the model to a device, or to those of `model.device_map`; nothing where it
    is kept as it is. Raises ConfigError where bitsandbytes has nothing for the device."""
    if config.quantize is None:
        return {}
    check_library(config)
    _check_device(config, device)
    from transformers import BitsAndBytesConfig

    if config.quantize == "8bit":
        how = BitsAndBytesConfig(load_in_8bit=True)
    else:
        how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": how, **({"device_map": {"": device}} if config.device_map is None else {})}


def quantised(module: "nn.Module", config: ModelConfig) -> "nn.Module":
    """The model, ready to run. Raises ConfigError for a checkpoint that is quantised already, and was read as such."""
    if config.quantize is None:
        return module
    if module.hf_quantizer.pre_quantized:  # type: ignore[union-attr]  # typed as a tensor or module
        raise ConfigError(
            f"model.quantize={config.quantize}: model.path={config.path} is quantised already; give the checkpoint it"
            " was made from"
        )
    for part in module.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):  # else a CPU computes 4 bits in bfloat16, without a gradient
            part.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    return module


def _check_device(config: ModelConfig, device: "torch.device") -> None:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # each product tells that it rounds its input
    try:
        from bitsandbytes import supported_torch_devices
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise ConfigError(
            f"model.quantize={config.quantize}: bitsandbytes cannot be used here ({one_line(error)})"
        ) from error
    if config.device_map is None and device.type not in supported_torch_devices:
        known = ", ".join(sorted(supported_torch_devices))
        raise ConfigError(
            f"model.quantize={config.quantize}: this version of bitsandbytes has nothing for {device.type}, but for"
            f" {known}; take model.device of these"
        )
