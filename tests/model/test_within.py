"""Attention that keeps within documents gives, in a packed row, what each document gives alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GptOssConfig, MambaConfig, OPTConfig

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.harvest import harvest
from sae_sweep.model.load import load_model
from sae_sweep.model.parting import Parting
from sae_sweep.model.suffix import Suffix
from sae_sweep.model.within import within_documents

Config = Callable[..., ModelConfig]
BOS, EOS = 1, 0
ROWS = torch.tensor([[BOS, 5, 6, 7, EOS, BOS, 9, 10, 11, 12, 13], [BOS, 20, EOS, BOS, 21, 22, 23, 24, EOS, BOS, 25]])
CUTS = ([5, 6], [3, 6, 2])
"""Tokens of the documents of each row."""
HOOK = "blocks.2.hook_resid_post"


@pytest.fixture(params=["gemma2", "gpt2", "opt", "gpt_oss"])
def folder(request: pytest.FixtureRequest, build_model: Callable[..., Path]) -> Any:
    """With a sliding window; with learned positions; one that must be given a mask, and one of each kind of layer."""
    if request.param == "gpt_oss":
        own = {"num_key_value_heads": 2, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2}
        return build_model("oss", GptOssConfig, sliding_window=3, **own)
    if request.param == "opt":
        return build_model("opt", OPTConfig, word_embed_proj_dim=32, ffn_dim=80)
    return request.getfixturevalue(f"{request.param}_folder")


def test_a_document_gives_what_it_gives_alone(folder: Path, model_config: Config) -> None:
    model = load_model(model_config(folder, dtype="float64"))
    within = within_documents(model, Parting(BOS, EOS))
    together_RTD, final_RTD = harvest(within, ROWS, [HOOK])[HOOK], within.final_hidden(ROWS)
    for row, cuts in enumerate(CUTS):
        start = 0
        for length in cuts:
            alone = ROWS[row : row + 1, start : start + length]
            place = slice(start, start + length)
            expected = harvest(model, alone, [HOOK])[HOOK][0]
            torch.testing.assert_close(together_RTD[row, place], expected, rtol=0, atol=1e-10)
            torch.testing.assert_close(final_RTD[row, place], model.final_hidden(alone)[0], rtol=0, atol=1e-10)
            start += length
    assert (final_RTD - model.final_hidden(ROWS)).abs().max() > 0.01
    assert model.within is None
    suffix = Suffix(within, [HOOK])
    clean = suffix.clean(ROWS)
    assert torch.equal(clean.final_RTD, final_RTD)
    changed = clean.activations[HOOK].clone()
    changed[0, 1] = 0
    touched = (suffix.run(HOOK, clean, changed) - final_RTD).abs().sum(-1) > 1e-12
    assert touched[0, 5:].logical_not().all()
    assert touched[0, 1:5].any()


def test_models_that_remember_are_refused(build_model: Callable[..., Path], model_config: Config) -> None:
    model = load_model(model_config(build_model("mamba", MambaConfig, state_size=8)))
    with pytest.raises(
        ConfigError, match=r"MambaForCausalLM lets what it makes of a token depend on documents"
    ) as told:
        within_documents(model, Parting(BOS, EOS))
    assert "\n" not in str(told.value)
    assert within_documents(model, None) is model


def test_where_documents_begin() -> None:
    def begins(bos: int | None, eos: int | None, row: list[int]) -> list[int]:
        found: Tensor = Parting(bos, eos).begins(torch.tensor([row]))
        return found[0].nonzero().flatten().tolist()

    assert begins(BOS, EOS, [BOS, 5, EOS, BOS, 6, 7]) == [0, 3]
    assert begins(None, EOS, [5, EOS, 6, EOS, EOS, 7]) == [0, 2, 4, 5]
    assert begins(BOS, None, [6, 7, BOS, 8, BOS]) == [0, 2, 4]
