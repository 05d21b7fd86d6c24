"""CE, KL and its gradient by tiles, against whole logits in float64."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig, PhiConfig

from sae_sweep.config.schema import ModelConfig
from sae_sweep.evaluation import tiles
from sae_sweep.model.head import head_of, logits
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.load import load_model
from sae_sweep.plan import constants

HEADS = {
    "softcap": (Gemma2Config, {"final_logit_softcapping": 3.0, "head_dim": 8}),
    "scale": (CohereConfig, {"logit_scale": 0.1}),
    "divided": (GraniteConfig, {"logits_scaling": 3.0}),
    "tied": (LlamaConfig, {"tie_word_embeddings": True}),
    "bias": (PhiConfig, {}),
}
DTYPES = ("float32", "bfloat16")


@pytest.fixture(scope="module", params=[(head, dtype) for head in HEADS for dtype in DTYPES], ids="-".join)
def model(request: pytest.FixtureRequest, build_model: Callable[..., Path]) -> LanguageModel:
    name, dtype = request.param
    config_class, own = HEADS[name]
    sizes = dict.fromkeys(("d_model", "n_layers", "n_heads", "d_head", "d_mlp", "vocab_size"))
    path = str(build_model(config_class.__name__, config_class, **own))
    config = ModelConfig("small", path, None, "hf", dtype, "cpu", trust_remote_code=False, **sizes)
    made = load_model(config)
    embedding = made.module.get_output_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        embedding.weight.mul_(20)  # so that logits are as large as those of a trained model
        if isinstance(embedding, nn.Linear) and embedding.bias is not None:
            embedding.bias.copy_(torch.linspace(-3, 3, len(embedding.bias)))
    return made


@pytest.fixture
def hidden(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """Final hidden states of 23 positions, clean and another pass's; five positions by 70 tokens are a tile."""
    monkeypatch.setitem(constants.TILE_POSITIONS, "cpu", 5)
    monkeypatch.setitem(constants.TILE_TOKENS, "cpu", 70)
    clean, other = torch.randn(2, 23, model.facts.d_model, generator=torch.Generator().manual_seed(0))
    dtype = next(model.module.parameters()).dtype
    return clean.to(dtype), (clean + 0.5 * other).to(dtype)


def test_ce_and_kl_are_those_of_whole_logits(model: LanguageModel, hidden: tuple[Tensor, Tensor]) -> None:
    target_N = torch.arange(23) * 13 % model.facts.vocab_size
    with torch.no_grad(), head_of(model) as head:
        assert len(head.tiles(70)) > 3
        found = tiles.losses_of(head, hidden, target_N)
        p, q = (logits(model, one).double().log_softmax(-1) for one in hidden)
    ce = torch.stack([-one.gather(1, target_N[:, None])[:, 0] for one in (p, q)])
    kl_N = (p.exp() * (p - q)).sum(1)
    assert kl_N.mean() > 0.01
    torch.testing.assert_close(found[0], ce, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[1], torch.stack([torch.zeros_like(kl_N), kl_N]), rtol=1e-6, atol=1e-6)


def test_the_gradient_is_that_of_whole_logits(model: LanguageModel, hidden: tuple[Tensor, Tensor]) -> None:
    clean_ND, spliced_ND = hidden
    leaf_ND = spliced_ND.clone().requires_grad_()
    p = logits(model, clean_ND).double().log_softmax(-1)
    kl = (p.exp() * (p - logits(model, leaf_ND).double().log_softmax(-1))).sum()
    (expected_ND,) = torch.autograd.grad(kl, leaf_ND)
    total, gradient_ND = tiles.kl_and_gradient(model, clean_ND, spliced_ND)
    assert total.item() == pytest.approx(kl.item(), rel=1e-6)
    rounding = 32 * torch.finfo(clean_ND.dtype).eps
    torch.testing.assert_close(gradient_ND, expected_ND, rtol=rounding, atol=rounding * expected_ND.abs().max().item())
    with torch.no_grad():
        assert tiles.kl_and_gradient(model, clean_ND, spliced_ND)[1].shape == (0, clean_ND.shape[1])


def test_certain_predictions_are_finite(model: LanguageModel, hidden: tuple[Tensor, Tensor]) -> None:
    with torch.no_grad(), head_of(model) as head:
        found = tiles.losses_of(head, [1000 * one for one in hidden], torch.zeros(23, dtype=torch.int64))
        largest = max(logits(model, 1000 * one).abs().max().item() for one in hidden)
    assert found.isfinite().all()
    assert (found[0] >= -1e-6 * largest).all()
