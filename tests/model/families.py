"""Families of models, each as a tiny random one, and where each keeps what sites are: typed by hand from its code.

A place is `in MODULE` or `out MODULE`, relative to the block; `out MODULE 1` is the second of what it returns. None is
a site that the family does not have.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

Places = Mapping[str, str | None]
VOCABULARY = 300
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 2}
GROUPED = {"num_key_value_heads": 2}
HEAD = {**GROUPED, "head_dim": 16}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "layer_types": ["linear_attention", "full_attention"],
}
SPARSE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SHARED = {**SPARSE, "shared_expert_intermediate_size": 40}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
SSM = {"mamba_d_state": 8, "mamba_expand": 2, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_chunk_size": 4}

LLAMA: Places = {
    "resid_pre": "in .",
    "attn_z": "in self_attn.o_proj",
    "attn_out": "out self_attn",
    "resid_mid": "in post_attention_layernorm",
    "mlp_in": "in mlp",
    "router": None,
    "experts_out": None,
    "mlp_post": "in mlp.down_proj",
    "mlp_out": "out mlp",
    "resid_post": "out .",
}
NEITHER: Places = {"attn_z": None, "attn_out": None}
NO_SUMS: Places = {"attn_out": None, "resid_mid": None, "mlp_out": None}
STREAM: Places = {kind: place if kind.startswith("resid_p") else None for kind, place in LLAMA.items()}
AFTER_NORMS: Places = {
    **LLAMA,
    "attn_out": "out post_attention_layernorm",
    "resid_mid": "in mlp",
    "mlp_out": "out post_feedforward_layernorm",
}
GEMMA2: Places = {**AFTER_NORMS, "resid_mid": "in pre_feedforward_layernorm"}
GATE: Places = {**LLAMA, "mlp_post": None, "router": "out mlp.gate 0", "experts_out": "out mlp.experts"}
ROUTER: Places = {**GATE, "router": "out mlp.router 0"}
DELTA_NET: Places = {"attn_z": "in linear_attn.out_proj", "attn_out": "out linear_attn"}
PHI: Places = {**LLAMA, "attn_z": "in self_attn.dense", "mlp_post": "in mlp.fc2", "resid_mid": None}
FEED: Places = {**LLAMA, "mlp_in": "in feed_forward", "mlp_post": "in feed_forward.down_proj"}
FEED = {**FEED, "mlp_out": "out feed_forward"}
GPT: Places = {**LLAMA, "attn_z": "in attn.c_proj", "attn_out": "out attn", "resid_mid": "in ln_2"}
GPT = {**GPT, "mlp_post": "in mlp.c_proj"}
NEOX: Places = {**LLAMA, "attn_z": "in attention.dense", "attn_out": "out attention", "resid_mid": None}
NEOX = {**NEOX, "mlp_post": "in mlp.dense_4h_to_h"}
FALCON: Places = {**NEOX, "attn_z": "in self_attention.dense", "attn_out": "out self_attention"}
GPTJ: Places = {**GPT, "attn_z": "in attn.out_proj", "resid_mid": None, "mlp_post": "in mlp.fc_out"}
OPT: Places = {
    **LLAMA,
    "attn_z": "in self_attn.out_proj",
    "resid_mid": "in final_layer_norm",
    "mlp_in": "in fc1",
    "mlp_post": "in fc2",
    "mlp_out": "out fc2",
}
BLOOM: Places = {
    **FALCON,
    "attn_out": "out self_attention.dense",
    "resid_mid": "out self_attention",
    "mlp_out": "out mlp.dense_4h_to_h",
}
MPT: Places = {
    **GPT,
    "attn_z": "in attn.out_proj",
    "resid_mid": "in norm_2",
    "mlp_in": "in ffn",
    "mlp_post": "in ffn.down_proj",
    "mlp_out": "out ffn.down_proj",
}
GEMMA4_EXPERTS: Places = {**GEMMA2, "mlp_post": None, "router": "out router.proj", "experts_out": "out experts"}
JAMBA: Places = {**FEED, "resid_mid": "in pre_ff_layernorm"}
JAMBA_MOE: Places = {**JAMBA, "mlp_post": None, "router": "out feed_forward.router 0"}
JAMBA_MOE = {**JAMBA_MOE, "experts_out": "out feed_forward.experts"}
GRIFFIN: Places = {**LLAMA, **NEITHER, "resid_mid": "in channel_pre_norm", "mlp_in": "in mlp_block"}
GRIFFIN = {**GRIFFIN, "mlp_post": "in mlp_block.down_proj", "mlp_out": "out mlp_block"}
LFM: Places = {
    **LLAMA,
    "attn_z": "in self_attn.out_proj",
    "resid_mid": "in ffn_norm",
    "mlp_in": "in feed_forward",
    "mlp_post": "in feed_forward.w2",
    "mlp_out": "out feed_forward",
}


@dataclass(frozen=True)
class Family:
    """A model type of transformers, what its tiny model's config has of its own, and the places in its blocks."""

    kind: str
    own: Mapping[str, Any] = field(default_factory=dict)
    places: Places = field(default_factory=lambda: LLAMA)
    blocks: str = "model.layers"
    layers: Mapping[int, Places] = field(default_factory=dict)
    """Where a block is not as the others."""
    sees: bool = False
    """Whether the language model is a part of one that also sees; `own` is of its text config."""
    buffers: Mapping[str, float] = field(default_factory=dict)
    """By the end of their name, what they are set to."""

    def place(self, kind: str, layer: int) -> str | None:
        return {**self.places, **self.layers.get(layer, {})}[kind]


DECODER, SIGHT = "transformer.h", "model.language_model.layers"
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
THREE_ROPES = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
QWEN_VISION = {"depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32}
FAMILIES = {
    "GPT-2": Family("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, GPT, DECODER),
    "GPT-Neo": Family(
        "gpt_neo",
        {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 4, "window_size": 4},
        {**GPT, "attn_z": "in attn.attention.out_proj"},
        DECODER,
    ),
    "GPT-J": Family("gptj", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}, GPTJ, DECODER),
    "GPT-NeoX, Pythia": Family("gpt_neox", {"use_parallel_residual": True}, NEOX, "gpt_neox.layers"),
    "OPT": Family("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}, OPT, "model.decoder.layers"),
    "BLOOM": Family("bloom", {"n_layer": 2, "n_head": 4}, BLOOM, DECODER),
    "Falcon": Family("falcon", {"ffn_hidden_size": 48}, FALCON, DECODER),
    "MPT": Family("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "expansion_ratio": 2}, MPT, "transformer.blocks"),
    "Llama": Family("llama", GROUPED),
    "Mistral": Family("mistral", {**GROUPED, "sliding_window": 4}),
    "Mixtral": Family("mixtral", {**GROUPED, **LOCAL}, GATE),
    "Gemma": Family("gemma", {"head_dim": 16, "num_key_value_heads": 1}),
    "Gemma 2": Family("gemma2", {**HEAD, "sliding_window": 4, "attn_logit_softcapping": 2.0}, GEMMA2),
    "Gemma 3": Family("gemma3_text", {**HEAD, "sliding_window": 4}, GEMMA2),
    "Gemma 3n": Family(
        "gemma3n_text",
        {**HEAD, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 300, "num_kv_shared_layers": 0}
        | {"laurel_rank": 4, "sliding_window": 4, "activation_sparsity_pattern": [0.0, 0.0]},
        {**GEMMA2, **NO_SUMS, "resid_pre": None, "resid_post": None},
    ),
    "Gemma 4": Family(
        "gemma4_text",
        {**HEAD, "sliding_window": 4, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 300}
        | {"layer_types": ["sliding_attention", "full_attention"], "final_logit_softcapping": 3.0},
        GEMMA2,
        buffers={"layer_scalar": 0.7},
    ),
    "Gemma 4, experts": Family(
        "gemma4_text",
        {**HEAD, "hidden_size_per_layer_input": 0, "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2}
        | {"moe_intermediate_size": 24, "layer_types": ["sliding_attention", "full_attention"]},
        GEMMA4_EXPERTS,
        buffers={"layer_scalar": 0.7},
    ),
    "Qwen 2": Family("qwen2", GROUPED),
    "Qwen 2, experts": Family("qwen2_moe", {**GROUPED, **SHARED}, GATE),
    "Qwen 3": Family("qwen3", HEAD),
    "Qwen 3, experts": Family("qwen3_moe", {**HEAD, **SPARSE, "mlp_only_layers": [1]}, GATE, layers={1: LLAMA}),
    "Qwen3-Next": Family("qwen3_next", {**HEAD, **DELTA, **SHARED}, GATE, layers={0: DELTA_NET}),
    "Qwen 3.5": Family("qwen3_5_text", {**HEAD, **DELTA}, layers={0: DELTA_NET}),
    "Qwen 3.5, experts": Family("qwen3_5_moe_text", {**HEAD, **DELTA, **SHARED}, GATE, layers={0: DELTA_NET}),
    "Phi": Family("phi", {}, PHI),
    "Phi-3": Family("phi3", GROUPED),
    "Phi-3.5, experts": Family("phimoe", {**GROUPED, **LOCAL}, ROUTER),
    "OLMo": Family("olmo", GROUPED),
    "OLMo 2": Family("olmo2", GROUPED, AFTER_NORMS),
    "OLMo 3": Family("olmo3", {**GROUPED, "sliding_window": 4}, AFTER_NORMS),
    "OLMoE": Family("olmoe", {**GROUPED, **SPARSE}, GATE),
    "GPT-OSS": Family(
        "gpt_oss",
        {**HEAD, **LOCAL, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
        ROUTER,
    ),
    "DeepSeek-V3": Family(
        "deepseek_v3",
        {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_group": 2, "topk_group": 1}
        | {"first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4}
        | {"qk_nope_head_dim": 8, "v_head_dim": 8, "num_key_value_heads": 4},
        GATE,
        layers={0: LLAMA},
    ),
    "Llama 4": Family(
        "llama4_text",
        {**HEAD, **LOCAL, "num_experts_per_tok": 1, "intermediate_size_mlp": 48, "moe_layers": [1]},
        FEED,
        layers={1: {"mlp_post": None, "router": "out feed_forward.router 1"}},
    ),
    "GLM-4": Family(
        "glm4",
        HEAD,
        {**LLAMA, "attn_out": "out post_self_attn_layernorm", "mlp_out": "out post_mlp_layernorm"},
    ),
    "StableLM": Family("stablelm", GROUPED),
    "Cohere 2": Family("cohere2", {**GROUPED, "sliding_window": 4}, {**LLAMA, "resid_mid": None}),
    "Exaone 4": Family("exaone4", {**GROUPED, "sliding_window": 4}, AFTER_NORMS),
    "SmolLM3": Family("smollm3", GROUPED),
    "Granite, scaled residual": Family("granite", {**GROUPED, "residual_multiplier": 0.3}, {**LLAMA, **NO_SUMS}),
    "LFM2": Family("lfm2", {**GROUPED, "layer_types": ["conv", "full_attention"]}, LFM, layers={0: NEITHER}),
    "Mamba": Family("mamba", {"state_size": 8}, STREAM, "backbone.layers"),
    "Mamba 2": Family(
        "mamba2",
        {"num_heads": 4, "head_dim": 16, "n_groups": 2, "state_size": 8, "chunk_size": 4},
        STREAM,
        "backbone.layers",
    ),
    "Jamba": Family(
        "jamba",
        {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1}
        | {"expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 8, "mamba_dt_rank": 4},
        JAMBA,
        layers={0: NEITHER, 1: JAMBA_MOE},
    ),
    "Bamba": Family("bamba", {**GROUPED, **SSM, "attn_layer_indices": [1]}, JAMBA, layers={0: NEITHER}),
    "Falcon-H1": Family("falcon_h1", {**GROUPED, **SSM, "mamba_d_ssm": 64}, {**FEED, **NO_SUMS}),
    "RecurrentGemma": Family(
        "recurrent_gemma",
        {"num_attention_heads": 4, "lru_width": 32, "block_types": ["recurrent", "attention"]},
        GRIFFIN,
    ),
    "StarCoder 2": Family("starcoder2", GROUPED, {**LLAMA, "mlp_post": "in mlp.c_proj"}),
    "GPT-BigCode": Family("gpt_bigcode", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48}, GPT, DECODER),
    "CodeGen": Family("codegen", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}, GPTJ, DECODER),
    "GLM-4.5, experts": Family(
        "glm4_moe",
        {**HEAD, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
        | {"n_group": 2, "topk_group": 1, "first_k_dense_replace": 1},
        GATE,
        layers={0: LLAMA},
    ),
    "Granite 4, hybrid": Family(
        "granitemoehybrid",
        {**GROUPED, **LOCAL, **SSM, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 40},
        {**STREAM, "attn_z": "in self_attn.o_proj"},
        layers={0: NEITHER},
    ),
    "Nemotron-H": Family(
        "nemotron_h",
        {**HEAD, "layers_block_type": ["mamba", "attention"], "mamba_num_heads": 4, "mamba_head_dim": 16}
        | {"ssm_state_size": 8, "n_groups": 2, "chunk_size": 4},
        STREAM,
    ),
    "Gemma 3, seeing": Family("gemma3", {**HEAD, "sliding_window": 4}, GEMMA2, SIGHT, sees=True),
    "Qwen 3.5, seeing": Family("qwen3_5", {**HEAD, **DELTA}, LLAMA, SIGHT, {0: DELTA_NET}, sees=True),
    "Qwen 2.5-VL": Family("qwen2_5_vl", {**GROUPED, **THREE_ROPES}, blocks=SIGHT, sees=True),
    "Qwen 3-VL": Family("qwen3_vl", {**HEAD, **THREE_ROPES}, blocks=SIGHT, sees=True),
    "Mistral 3, seeing": Family("mistral3", HEAD, blocks=SIGHT, sees=True),
    "LLaVA": Family("llava", GROUPED, blocks=SIGHT, sees=True),
}
CHEAP = ("OPT", "BLOOM", "Gemma 4, experts", "Qwen 3.5, experts", "GPT-OSS", "Mamba", "Qwen 2.5-VL")
"""Of every form of block one."""
MORE = {
    "gemma3": {"vision_config": {**VISION, "image_size": 16, "patch_size": 4, "vision_use_head": False}},
    "qwen2_5_vl": {"vision_config": QWEN_VISION},
    "qwen3_5": {"vision_config": QWEN_VISION},
    "qwen3_vl": {"vision_config": {**QWEN_VISION, "deepstack_visual_indexes": [0]}},
    "mistral3": {"vision_config": {"model_type": "pixtral", **VISION, "image_size": 16, "patch_size": 4}},
    "llava": {"vision_config": {"model_type": "clip_vision_model", **VISION, "image_size": 16, "patch_size": 4}},
}
TEXT = {"mistral3": "mistral", "llava": "llama"}


def save(family: Family, folder: Path) -> Path:
    """The family's tiny model, with random numbers wherever it begins with equal ones."""
    text = {**SIZES, **COMMON, **({"max_position_embeddings": 64} if family.kind != "mpt" else {}), **family.own}
    if family.sees:
        kind = {"model_type": TEXT[family.kind]} if family.kind in TEXT else {}
        config = AutoConfig.for_model(family.kind, text_config={**kind, **text}, **MORE[family.kind])
    else:
        config = AutoConfig.for_model(family.kind, **text)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = (AutoModelForImageTextToText if family.sees else AutoModelForCausalLM).from_config(config)
        for parameter in map(torch.Tensor.detach, model.parameters()):
            equal = parameter.numel() < 2 or float(parameter.std()) == 0
            torch.nn.init.normal_(parameter, float(parameter.mean()) if equal else 0.0, 0.2)
        for name, buffer in model.named_buffers():
            for end, value in family.buffers.items():
                if name.endswith(end):
                    buffer.fill_(value)
    model.save_pretrained(folder)
    return folder


class Reference:
    """The plain Hugging Face model with plain module hooks."""

    def __init__(self, family: Family, folder: Path) -> None:
        loader = AutoModelForImageTextToText if family.sees else AutoModelForCausalLM
        self.module = loader.from_pretrained(folder, dtype=torch.float64).eval()
        self.module.set_experts_implementation("eager")
        self.family = family

    @torch.no_grad()
    def logits(self, tokens_RT: Tensor, place: str = "", layer: int = 0, value: Tensor | None = None) -> Any:
        """The logits, with the value put in at a place; and what was there."""
        seen: list[Tensor] = []
        hook = self._hook(place, seen, value)
        if not place:
            return self.module(input_ids=tokens_RT, use_cache=False).logits, None
        module = self.module.get_submodule(f"{self.family.blocks}.{layer}")
        module = module if place.split()[1] == "." else module.get_submodule(place.split()[1])
        handle = (
            module.register_forward_pre_hook(hook, with_kwargs=True)
            if place.startswith("in")
            else module.register_forward_hook(lambda _, __, output: hook(_, (output,), {}))
        )
        with handle:
            logits = self.module(input_ids=tokens_RT, use_cache=False).logits
        (found,) = seen
        return logits, found.reshape(*tokens_RT.shape, -1)

    @staticmethod
    def _hook(place: str, seen: list[Tensor], value: Tensor | None) -> Any:
        index = int(place.split()[2]) if len(place.split()) > 2 else 0

        def on_output(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            (output,) = args
            own = output[index] if isinstance(output, tuple) else output
            seen.append(own.clone())
            if value is None:
                return None
            new = value.reshape(own.shape)
            return (*output[:index], new, *output[index + 1 :]) if isinstance(output, tuple) else new

        def on_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            own = args[0] if args else kwargs["hidden_states"]
            seen.append(own.clone())
            if value is None:
                return None
            new = value.reshape(own.shape)
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        return on_input if place.startswith("in") else on_output
