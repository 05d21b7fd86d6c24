from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma2Config

from sae_sweep.config.schema import ModelConfig
from sae_sweep.model.load import LanguageModel, load_model
from sae_sweep.model.sites import HOOK_OF_KIND

NAMES = ("gpt2", "llama", "neox", "gemma", "gemma2")


@pytest.fixture(scope="session")
def model_config() -> Callable[..., ModelConfig]:
    """A config with the defaults of configs/model/local.yaml, on the CPU."""

    def config(path: Path | str | None, **own: Any) -> ModelConfig:
        sizes = dict.fromkeys(("d_model", "n_layers", "n_heads", "d_head", "d_mlp", "vocab_size"))
        values: dict[str, Any] = {
            "name": "small",
            "path": None if path is None else str(path),
            "revision": None,
            "backend": "hf",
            "dtype": "float32",
            "device": "cpu",
            "trust_remote_code": False,
            **sizes,
        }
        return ModelConfig(**{**values, **own})

    return config


@pytest.fixture(scope="session")
def gemma2_folder(build_model: Callable[..., Path]) -> Path:
    # A sliding window shorter than the rows, and head caps tight enough to show.
    return build_model(
        "gemma2",
        Gemma2Config,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=4,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    )


@dataclass(frozen=True)
class Paths:
    """Where one architecture keeps what our code has to find by itself; relative to a block but for `blocks`."""

    blocks: str
    attention: str
    attention_projection: str
    mlp_projection: str
    attention_added: str
    mlp_added: str
    before_mlp: str | None
    """The norm whose input is resid_mid."""
    mlp: str = "mlp"


LLAMA = Paths(
    "model.layers",
    "self_attn",
    "self_attn.o_proj",
    "mlp.down_proj",
    "self_attn",
    "mlp",
    "post_attention_layernorm",
)
PATHS = {
    "gpt2": Paths("transformer.h", "attn", "attn.c_proj", "mlp.c_proj", "attn", "mlp", "ln_2"),
    "llama": LLAMA,
    "gemma": LLAMA,
    "gemma2": Paths(
        "model.layers",
        "self_attn",
        "self_attn.o_proj",
        "mlp.down_proj",
        "post_attention_layernorm",
        "post_feedforward_layernorm",
        "pre_feedforward_layernorm",
    ),
    "neox": Paths("gpt_neox.layers", "attention", "attention.dense", "mlp.dense_4h_to_h", "attention", "mlp", None),
}


class Reference:
    """A plain Hugging Face model with plain module hooks: what our harvest and suffix passes have to agree with."""

    def __init__(self, name: str, folder: Path, dtype: torch.dtype) -> None:
        self.paths = PATHS[name]
        self.module = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    def part(self, layer: int, path: str = "") -> torch.nn.Module:
        block = self.module.get_submodule(f"{self.paths.blocks}.{layer}")
        return block.get_submodule(path)

    def _place(self, kind: str, layer: int) -> tuple[torch.nn.Module, bool]:
        """The module and whether the site is its input."""
        paths = self.paths
        path, is_input = {
            "resid_pre": ("", True),
            "resid_mid": (paths.before_mlp, True),
            "resid_post": ("", False),
            "attn_z": (paths.attention_projection, True),
            "attn_out": (paths.attention_added, False),
            "mlp_in": (paths.mlp, True),
            "mlp_post": (paths.mlp_projection, True),
            "mlp_out": (paths.mlp_added, False),
        }[kind]
        assert path is not None
        return self.part(layer, path), is_input

    @torch.no_grad()
    def activation(self, kind: str, layer: int, tokens_RT: Tensor) -> Tensor:
        module, is_input = self._place(kind, layer)
        seen: list[Tensor] = []

        def hook(_: object, args: tuple[Any, ...], output: Any) -> None:
            value = args[0] if is_input else output
            seen.append((value[0] if isinstance(value, tuple) else value).clone())

        with module.register_forward_hook(hook):
            self.module(input_ids=tokens_RT)
        (value,) = seen
        return value

    @torch.no_grad()
    def final_hidden(self, tokens_RT: Tensor, spliced: tuple[str, int, Tensor] | None = None) -> Tensor:
        """The input of the lm head in a full forward pass, with (kind, layer, replacement) spliced in."""
        seen: list[Tensor] = []
        with ExitStack() as stack:
            for handle in [] if spliced is None else self._splice(*spliced):
                stack.callback(handle.remove)
            stack.enter_context(self.module.lm_head.register_forward_pre_hook(lambda _, args: seen.append(args[0])))
            self.module(input_ids=tokens_RT)
        return seen[0]

    def _splice(self, kind: str, layer: int, value: Tensor) -> Iterator[Any]:
        def as_output(_: object, __: object, output: Any) -> Any:
            return (value, *output[1:]) if isinstance(output, tuple) else value

        if kind == "resid_mid":
            # Attention writes what is missing to the replacement.
            before: list[Tensor] = []
            yield self.part(layer).register_forward_pre_hook(lambda _, args: before.append(args[0]))
            attention = self.part(layer, self.paths.attention_added)
            yield attention.register_forward_hook(
                lambda _, __, output: (
                    (value - before[0], *output[1:]) if isinstance(output, tuple) else value - before[0]
                )
            )
            return
        module, is_input = self._place(kind, layer)
        if is_input:
            yield module.register_forward_pre_hook(lambda _, args: (value, *args[1:]))
        else:
            yield module.register_forward_hook(as_output)


@dataclass(frozen=True)
class Case:
    """One architecture: our model and the reference, on the same weights."""

    name: str
    folder: Path
    model: LanguageModel
    reference: Reference

    @property
    def kinds(self) -> tuple[str, ...]:
        dense = (kind for kind in HOOK_OF_KIND if kind not in ("router", "experts_out"))
        return tuple(kind for kind in dense if kind != "resid_mid" or self.reference.paths.before_mlp)


@pytest.fixture(scope="session", params=NAMES)
def case(request: pytest.FixtureRequest, model_config: Callable[..., ModelConfig]) -> Case:
    """Each architecture in float64."""
    folder = request.getfixturevalue(f"{request.param}_folder")
    model = load_model(model_config(folder, dtype="float64"))
    return Case(request.param, folder, model, Reference(request.param, folder, torch.float64))


@pytest.fixture(scope="session")
def tokens_RT() -> Tensor:
    return torch.randint(3, 300, (3, 12), generator=torch.Generator().manual_seed(1))
