"""Attention whose heads give another size than keys and queries have."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DeepseekV3Config

from sae_sweep.config.schema import ModelConfig
from sae_sweep.model.harvest import harvest
from sae_sweep.model.load import load_model
from sae_sweep.model.suffix import Suffix

HEADS, VALUES = 4, 6


def test_values_of_a_size_of_their_own(
    build_model: Callable[..., Path], model_config: Callable[..., ModelConfig]
) -> None:
    """Multi-head latent attention: 4 heads give 6 numbers each, and its keys have 12."""
    sizes = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": VALUES}
    dense = {"first_k_dense_replace": 4, "n_routed_experts": 2, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 1}
    folder = build_model("mla", DeepseekV3Config, num_key_value_heads=HEADS, **sizes, **dense)
    model, hook = load_model(model_config(folder, dtype="float64")), "blocks.1.attn.hook_z"
    assert model.facts.d_head == VALUES
    tokens_RT = torch.randint(3, 300, (2, 7), generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    projection: nn.Module = plain.get_submodule("model.layers.1.self_attn.o_proj")
    projection.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        plain(input_ids=tokens_RT)
    found_RTd = harvest(model, tokens_RT, [hook])[hook]
    assert found_RTd.shape == (2, 7, HEADS * VALUES)
    torch.testing.assert_close(found_RTd, seen[0], rtol=1e-12, atol=1e-14)
    clean = Suffix(model, [hook]).clean(tokens_RT)
    torch.testing.assert_close(clean.activations[hook], seen[0], rtol=1e-12, atol=1e-14)
