"""What models go with that one device has no room for: `model.device_map` and `model.quantize`. No torch."""

from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.device_map import check_device_map
from sae_sweep.model.quantised import BYTES


def check_large(config: MemberConfig) -> None:
    """Raises ConfigError for values that cannot be, and for what they do not go with."""
    model = config.model
    check_device_map(model)
    if model.quantize is not None and model.quantize not in BYTES:
        raise ConfigError(f"model.quantize={model.quantize} is not one of {', '.join(BYTES)}")
    asked = [key for key in ("quantize", "device_map") if getattr(model, key) is not None]
    for key in asked:
        named = f"model.{key}"
        if model.backend != "hf":
            raise ConfigError(f"{named} is model.backend=hf's, and {model.backend} is asked for")
        if model.adapter is not None:
            raise ConfigError(
                f"model.adapter={model.adapter} is merged into a whole model on one device, and {named} asks for"
                " another; merge it (peft's merge_and_unload, then save_pretrained) and give that folder"
            )
    if model.quantize is None:
        return
    if model.dtype == "float64":
        raise ConfigError(f"model.dtype=float64: bitsandbytes computes model.quantize={model.quantize} in no such")
    if model.quantize == "8bit" and config.data.attention == "document":
        raise ConfigError(
            "data.attention=document: with model.quantize=8bit large numbers of any token decide how all that are read"
            " with it are rounded; take data.packing=document, or 4bit"
        )


def check_ranks(config: MemberConfig, devices: int) -> None:
    """Raises ConfigError for a model on several devices, where each of so many reads with a model of its own."""
    if devices > 1 and config.model.device_map is not None:
        raise ConfigError(
            f"model.device_map lays one model over devices, and {devices} (launcher.devices, or torchrun) would each"
            " have one; give either"
        )
