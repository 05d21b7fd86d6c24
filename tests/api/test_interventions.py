"""Interventions against hooks written by hand, in float64: on whole passes, and on each step of a generation."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import sae_sweep as ss
from sae_sweep.api.home import Home
from sae_sweep.config.files import config_of
from sae_sweep.model.intervene import changing
from sae_sweep.model.load import load_model
from sae_sweep.model.sites import parse_hook
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.forms.topk import TopKForm
from sae_sweep.saes.inference import InferenceSae, Lookup

EOS, BOS, PAD = 0, 1, 2
D, F = 32, 48
POST, MID, PRE = "blocks.1.hook_resid_post", "blocks.2.hook_resid_mid", "blocks.3.hook_resid_pre"


def sae_at(hook: str, seed: int = 0, form=None, **facts) -> ss.Sae:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = {"W_enc": normal(D, F), "W_dec": normal(F, D), "b_enc": normal(F), "b_dec": normal(D)}
    plain = InferenceSae(form or ReluForm(), tensors, True, transcodes="hook_name_out" in facts)
    return ss.Sae(plain, Home(Path("nowhere"), {"hook_name": hook, **facts}))


@pytest.fixture(scope="module")
def model(llama_folder) -> ss.Model:
    asked = {"model": "local", "model.path": str(llama_folder), "model.dtype": "float64", "model.device": "cpu"}
    return ss.Model(load_model(config_of(asked).model))


@pytest.fixture(scope="module")
def bridge(gpt2_folder) -> ss.Model:
    asked = {"model": "local", "model.path": str(gpt2_folder), "model.dtype": "float64", "model.device": "cpu"}
    return ss.Model(load_model(config_of({**asked, "model.backend": "transformer_lens"}).model))


@pytest.fixture(scope="module")
def plain(llama_folder):
    """The model, without anything of ours."""
    return AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float64).eval()


TOKENS = torch.tensor([[BOS, 40, 41, EOS, 42, 43], [44, 45, 46, 47, BOS, 48]])
COUNTED = torch.tensor([[0, 1, 1, 0, 1, 1], [0, 1, 1, 1, 0, 1]], dtype=torch.bool)


@contextmanager
def by_hand(plain, layer: int, change):
    """The output of a block of llama, [R, T, D], as `change` makes it."""

    def hook(_, __, output):
        value = output[0] if isinstance(output, tuple) else output
        value = change(value)
        return (value, *output[1:]) if isinstance(output, tuple) else value

    handle = plain.model.layers[layer].register_forward_hook(hook)
    yield
    handle.remove()


def logits(plain):
    with torch.no_grad():
        return plain(input_ids=TOKENS).logits


def close(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_steering_adds_the_latents_rows_at_counted_positions(model, plain):
    sae = sae_at(POST)
    row = 8.0 * sae.W_dec[9] - 2.0 * sae.W_dec[11]
    with by_hand(plain, 1, lambda x: x + COUNTED[..., None] * row):
        expected = logits(plain)
    with sae.steer(model, {9: 8.0, 11: -2.0}), torch.no_grad():
        close(model(TOKENS), expected)
    close(model(TOKENS), logits(plain))


def test_ablating_takes_out_what_a_latent_adds_and_leaves_the_error(model, plain):
    sae = sae_at(POST)

    def change(x):
        f = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc).relu()
        assert (f[..., 3][COUNTED] > 0).any()
        return x - COUNTED[..., None] * (f[..., 3, None] * sae.W_dec[3] + f[..., 5, None] * sae.W_dec[5])

    with by_hand(plain, 1, change):
        expected = logits(plain)
    with sae.ablate(model, [3, 5]), torch.no_grad():
        close(model(TOKENS), expected)


def test_a_splice_puts_reconstructions_in_place(model, plain):
    sae = sae_at(POST)
    with by_hand(plain, 1, lambda x: torch.where(COUNTED[..., None], sae(x), x)):
        expected = logits(plain)
    with sae.splice(model), torch.no_grad():
        close(model(TOKENS), expected)


@pytest.mark.parametrize("hook", [POST, MID, PRE, "blocks.1.hook_mlp_out", "blocks.1.hook_attn_out"])
@pytest.mark.parametrize("backend", ["model", "bridge"])
def test_a_splice_with_its_error_changes_no_logit(request, backend, hook):
    run = request.getfixturevalue(backend)
    with torch.no_grad():
        clean = run(TOKENS)
        with sae_at(hook).splice(run, error=True) as splice:
            close(run(TOKENS), clean)
            assert splice.codes.shape == (*TOKENS.shape, F)
        with sae_at(hook).splice(run):
            assert (run(TOKENS) - clean).abs().max() > 1e-3


def test_codes_and_errors_are_nodes_of_their_own(model):
    """A step along the gradient in codes changes the loss by as much as it says."""
    first, last = sae_at(POST), sae_at(PRE, 1, TopKForm(7))
    with ss.splice(model, {POST: first, PRE: last}, error=True) as codes:
        model(TOKENS)[:, -1].square().sum().backward()
    assert codes.error[POST].grad is not None
    for hook in (POST, PRE):
        assert codes[hook].shape == (*TOKENS.shape, F)
        assert codes[hook].grad[COUNTED].abs().sum() > 0
        assert (codes[hook].detach()[~COUNTED] == 0).all()
    slope_F = codes[PRE].grad[0, 5]
    moved_D = slope_F / slope_F.norm() @ last.W_dec

    def loss(step):
        def change(x):
            return torch.cat([x[:, :5], x[:, 5:] + step * moved_D], dim=1)

        with changing(model.running, parse_hook(PRE), change), torch.no_grad():
            return model(TOKENS[:1])[:, -1].square().sum()

    # Llama's norms compute in float32, whatever the model's dtype.
    torch.testing.assert_close((loss(2e-3) - loss(-2e-3)) / 4e-3, slope_F.norm(), rtol=1e-3, atol=0)


def test_a_transcoder_is_spliced_where_it_writes(model):
    reads, writes = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"
    sae = sae_at(reads, hook_name_out=writes)
    with torch.no_grad():
        clean = model(TOKENS)
        with sae.splice(model, error=True):
            close(model(TOKENS), clean)
        with sae.splice(model) as splice:
            model(TOKENS)
        close(splice.codes[COUNTED], sae.encode(ss.harvest(model, reads, TOKENS))[COUNTED])


@pytest.mark.parametrize("backend", ["model", "bridge"])
def test_generation_with_a_cache_is_generation_without(request, backend):
    """Greedy steps, each a whole pass over all tokens so far, give the same tokens: with a cache the one new position
    of a step counts."""
    run = request.getfixturevalue(backend)
    sae, start = sae_at(POST), torch.tensor([[BOS, 40, 41]])
    for held in (sae.steer(run, {3: 5.0}), sae.ablate(run, [1, 2]), sae.splice(run)):
        with held:
            made = run.generate(start, max_new_tokens=6)
            tokens = start
            while tokens.shape[1] < made.shape[1]:
                with torch.no_grad():
                    following = run(tokens)[:, -1].argmax(-1)
                tokens = torch.cat([tokens, following[:, None]], dim=1)
        assert made.tolist() == tokens.tolist()
        assert made.shape[1] > 4


def test_padding_on_the_left_moves_the_first_position(model):
    sae, text = sae_at(POST), torch.tensor([[40, 41, 42]])
    padded = torch.cat([torch.full((1, 2), PAD), text], dim=1)
    mask = (padded != PAD).long()
    with sae.steer(model, {3: 5.0}), torch.no_grad():
        positions = mask.cumsum(1).sub(1).clamp(min=0)
        found = model.module(input_ids=padded, attention_mask=mask, position_ids=positions).logits[:, 2:]
        close(found, model(text))


def test_latents_and_hooks_that_are_not_there_are_refused(model):
    sae = sae_at(POST)
    with pytest.raises(ss.ConfigError, match="latent 48: this SAE has latents 0 to 47"), sae.steer(model, {48: 1.0}):
        pass
    with pytest.raises(ss.ConfigError, match="not where this SAE writes"), ss.splice(model, {PRE: sae}):
        pass
    with pytest.raises(ss.ConfigError, match="nothing says which hook"):
        assert replace(sae.home, metadata={}).hooks


def test_a_crosscoder_is_steered_at_each_of_its_sites(model, plain):
    generator = torch.Generator().manual_seed(0)
    sizes = {"W_enc": (2 * D, F), "W_dec": (F, 2 * D), "b_enc": (F,), "b_dec": (2 * D,)}
    tensors = {name: torch.randn(size, generator=generator, dtype=torch.float64) for name, size in sizes.items()}
    hooks = [f"blocks.{layer}.hook_resid_post" for layer in (0, 1)]
    sae = ss.Sae(InferenceSae(ReluForm(), tensors, False, sites=2), Home(Path("nowhere"), {"hook_names": hooks}))
    first, last = (COUNTED[..., None] * 3.0 * row for row in sae.W_dec[5].chunk(2))
    with by_hand(plain, 0, lambda x: x + first), by_hand(plain, 1, lambda x: x + last):
        expected = logits(plain)
    with sae.steer(model, {5: 3.0}), torch.no_grad():
        close(model(TOKENS), expected)
    for refused in (sae.ablate(model, [5]), sae.splice(model)):
        with pytest.raises(ss.ConfigError, match="crosscoder"), refused:
            pass


def test_a_tokenized_sae_reads_the_tokens_of_each_pass(model, plain):
    rows_VD = torch.randn(300, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain_sae = sae_at(POST).inference
    sae = ss.Sae(replace(plain_sae, lookup=Lookup(rows_VD, True)), Home(Path("nowhere"), {"hook_name": POST}))
    with by_hand(plain, 1, lambda x: torch.where(COUNTED[..., None], sae(x, TOKENS), x)):
        expected = logits(plain)
    with sae.splice(model), torch.no_grad():
        close(model(TOKENS), expected)
    with pytest.raises(ValueError, match="token ids"):
        sae.encode(torch.zeros(1, D))
