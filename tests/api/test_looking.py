"""What latents fire on and do, against a plain recomputation on the same tokens."""

import pytest
import torch

import sae_sweep as ss
from sae_sweep.data.tokens import open_tokens


@pytest.fixture(scope="module")
def sae(sweep) -> ss.Sae:
    return sweep["topk-l0_16-w256"]


@pytest.fixture(scope="module")
def held_out(sae):
    """The held-out tokens [R, T], and the codes [R, T, F] at all but the first position of each row."""
    model, config = sae.model(), sae.home.config
    tokens = open_tokens(config.data, config.evaluation.tokens, model.tokenizer, model.running.facts.vocab_size)
    tokens_RT = torch.from_numpy(tokens.heldout).long()
    codes_RTF = sae.encode(ss.harvest(model, sae.cfg.hook_name, tokens_RT))
    counted_RT = ~torch.isin(tokens_RT, torch.tensor(model.tokenizer.all_special_ids))
    counted_RT[:, 0] = False
    return tokens_RT, codes_RTF * counted_RT[..., None], counted_RT


def test_top_contexts_are_the_rows_a_latent_is_largest_on(sae, held_out):
    tokens_RT, codes_RTF, counted_RT = held_out
    latent = int((codes_RTF > 0).sum((0, 1)).argmax())
    found = sae.top_contexts(latent, n=4, quantiles=3, width=5)
    best_R = codes_RTF[..., latent].amax(1)
    expected = best_R.sort(descending=True)
    torch.testing.assert_close(torch.tensor([each.activation for each in found.top]), expected.values[:4])
    first, row = found.top[0], int(expected.indices[0])
    at = int(codes_RTF[row, :, latent].argmax())
    window = slice(max(0, at - 5), at + 6)
    assert first.tokens == sae.model().strings(tokens_RT[row, window])
    torch.testing.assert_close(torch.tensor(first.activations), codes_RTF[row, window, latent])
    fires = codes_RTF[..., latent][codes_RTF[..., latent] > 0].sort().values
    assert found.density == pytest.approx(len(fires) / int(counted_RT.sum()))
    assert [len(some) for some in found.quantiles] == [4, 4, 4]
    for some, part in zip(found.quantiles, fires.tensor_split(3), strict=True):
        assert all(part[0] - 1e-5 <= each.activation <= part[-1] + 1e-5 for each in some)
    assert found.density == pytest.approx(float(sae.density()[latent]), rel=1e-4)
    assert "<span" in found._repr_html_()
    assert str(found).count("\n") == 4


def test_a_latent_that_never_fires_has_no_contexts(sae):
    quiet = ss.load(sae.home.folder)
    assert quiet.top_contexts(int(quiet.density().argmax())).top
    passes = sae.model().running.passes.clean
    assert quiet.top_contexts(int(quiet.density().argmax())).top
    assert sae.model().running.passes.clean == passes  # codes were kept
    quiet.b_enc[7] = -1e6
    found = quiet.top_contexts(7)
    assert (found.top, found.density, found.quantiles) == ([], 0.0, [[]] * 5)


def test_codes_of_a_text_stand_beside_its_tokens(sae):
    model = sae.model()
    found = sae.latents(model, "def f(x):\n    return x")
    assert "".join(found.tokens).endswith("def f(x):\n    return x")
    x_TD = ss.harvest(model, sae.cfg.hook_name, "def f(x):\n    return x")
    assert torch.equal(found.codes, sae.encode(x_TD))
    token, pairs = found.top(3)[-1]
    assert token == found.tokens[-1]
    assert [value for _, value in pairs] == found.codes[-1].topk(3).values.tolist()


def test_logit_effects_are_the_decoder_row_through_the_unembedding(sae):
    model = sae.model()
    effect_V = model.module.lm_head.weight @ sae.W_dec[9]
    found = sae.logit_effects(9, n=5)
    expected = effect_V.topk(5)
    assert found.positive[0] == (model.strings([int(expected.indices[0])])[0], float(expected.values[0]))
    assert [value for _, value in found.negative] == effect_V.sort().values[:5].tolist()


def test_texts_are_harvested_each_by_itself(sae):
    model = sae.model()
    one, two = ss.harvest(model, "blocks.1.hook_resid_mid", ["def", "def f(x):"])
    torch.testing.assert_close(two[: len(one)], one)
    assert torch.equal(ss.harvest(model, "blocks.1.hook_resid_mid", "def f(x):"), two)


def test_a_model_goes_on_from_text_under_an_intervention(sae):
    model = sae.model()
    plain = model.generate("def f(x):", max_new_tokens=8)
    with sae.steer(model, {9: 60.0}):
        assert model.generate("def f(x):", max_new_tokens=8) != plain
    assert model.generate("def f(x):", max_new_tokens=8) == plain
    with pytest.raises(ss.ConfigError, match="latent 256"):
        sae.top_contexts(256)
