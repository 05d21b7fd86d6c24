from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import CohereConfig, Gemma2Config, GraniteConfig, OPTConfig

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model import head
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.load import load_model
from tests.model.conftest import Case

Config = Callable[..., ModelConfig]


def by_tiles(model: LanguageModel, hidden_ND: Tensor) -> Tensor:
    """Logits of all tokens, 70 at a time."""
    with torch.no_grad(), head.head_of(model) as logits:
        assert len(logits.tiles(70)) > 1
        return torch.cat([logits(hidden_ND, tokens) for tokens in logits.tiles(70)], dim=1)


def test_logits_are_the_models_own(case: Case, tokens_RT: Tensor) -> None:
    with torch.no_grad():
        expected = case.reference.module(input_ids=tokens_RT).logits.flatten(0, 1)
    hidden_ND = case.model.final_hidden(tokens_RT).flatten(0, 1)
    torch.testing.assert_close(head.logits(case.model, hidden_ND), expected, rtol=0, atol=1e-9)
    part = head.logits(case.model, hidden_ND[5:7])
    torch.testing.assert_close(part, expected[5:7], rtol=0, atol=1e-9)
    torch.testing.assert_close(by_tiles(case.model, hidden_ND), expected, rtol=0, atol=1e-9)
    assert "forward" not in case.model.backbone.__dict__


def test_half_precision_comes_out_as_float32(gemma_folder: Path, model_config: Config, tokens_RT: Tensor) -> None:
    model = load_model(model_config(gemma_folder, dtype="bfloat16"))
    assert head.logits(model, model.final_hidden(tokens_RT)[0]).dtype == torch.float32


@pytest.mark.parametrize(
    ("config_class", "own", "product"),
    [
        (CohereConfig, {"logit_scale": 0.1}, False),
        (GraniteConfig, {"logits_scaling": 3.0}, False),
        (Gemma2Config, {"final_logit_softcapping": 30.0, "head_dim": 8}, False),
        (OPTConfig, {"word_embed_proj_dim": 32, "ffn_dim": 80}, True),
    ],
)
def test_other_heads(
    config_class: type,
    own: dict[str, object],
    product: bool,
    build_model: Callable[..., Path],
    model_config: Config,
    tokens_RT: Tensor,
) -> None:
    model = load_model(model_config(build_model(config_class.__name__, config_class, **own), dtype="float64"))
    with torch.no_grad():
        expected = model.module(input_ids=tokens_RT).logits[0]
    torch.testing.assert_close(head.logits(model, model.final_hidden(tokens_RT)[0]), expected, rtol=0, atol=1e-9)
    assert (model.lm_head is not None) == product
    torch.testing.assert_close(by_tiles(model, model.final_hidden(tokens_RT)[0]), expected, rtol=0, atol=1e-9)
    half = load_model(model_config(model.config.path, dtype="bfloat16"))
    assert (half.lm_head is not None) == product


def test_a_head_that_reads_more_than_the_final_hidden_states_is_refused(
    llama_folder: Path, model_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(model_config(llama_folder))
    forward = type(model.module).forward

    def biased(self: object, input_ids: Tensor, **others: object) -> object:
        output = forward(self, input_ids=input_ids, **others)
        output.logits = output.logits + input_ids[..., None]
        return output

    monkeypatch.setattr(type(model.module), "forward", biased)
    with pytest.raises(ConfigError, match=r"lm head of LlamaForCausalLM is not supported"):
        head.check_head(model, model.probe_tokens())


def test_a_head_that_looks_at_the_whole_vocabulary_is_not_parted(
    llama_folder: Path, model_config: Config, monkeypatch: pytest.MonkeyPatch, tokens_RT: Tensor
) -> None:
    """One that gives log-probabilities."""
    model = load_model(model_config(llama_folder))
    forward = type(model.module).forward

    def normalised(self: object, input_ids: Tensor, **others: object) -> object:
        output = forward(self, input_ids=input_ids, **others)
        output.logits = output.logits.log_softmax(-1)
        return output

    monkeypatch.setattr(type(model.module), "forward", normalised)
    model.lm_head = None
    head.check_head(model, model.probe_tokens())
    assert not model.tiled
    with head.head_of(model) as logits:
        assert logits.tiles(70) == [slice(0, model.facts.vocab_size)]
