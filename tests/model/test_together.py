"""Two models that read the same tokens: one vocabulary, each its own hooks."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig

from sae_sweep.config.files import config_of
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.harvest import harvest
from sae_sweep.model.load import load_model
from sae_sweep.model.second import models_of
from sae_sweep.model.sites import model_of, of_model, own_hook, parse_hook
from sae_sweep.model.together import Suffixes, harvest_together, load_models

HOOK = "blocks.1.hook_resid_post"
TOKENS = torch.arange(3, 27).view(2, 12)


def pair(first: Path, second: Path) -> MemberConfig:
    return config_of([f"site.models=[{first},{second}]", "model.device=cpu", "model.dtype=float64", "sae=topk"])


def test_names_of_hooks() -> None:
    theirs = of_model(HOOK, 1)
    assert (theirs, model_of(theirs), own_hook(theirs)) == (f"models.1.{HOOK}", 1, HOOK)
    assert (of_model(HOOK, 0), model_of(HOOK), own_hook(HOOK)) == (HOOK, 0, HOOK)
    site = parse_hook(theirs)
    assert (site.kind, site.layer, site.hook) == ("resid_post", 1, theirs)


def test_each_gives_what_it_gives_alone(llama_folder: Path, tuned_folder: Path) -> None:
    """Activations, clean passes and continued ones."""
    config, theirs = pair(llama_folder, tuned_folder), of_model(HOOK, 1)
    models = load_models(config)
    found = harvest_together(models, TOKENS, [HOOK, theirs])
    suffixes = Suffixes(models, [HOOK, theirs])
    clean = suffixes.clean(TOKENS)
    for hook, one in zip((HOOK, theirs), map(load_model, models_of(config)), strict=True):
        x_RTD = harvest(one, TOKENS, [HOOK])[HOOK]
        assert torch.equal(found[hook], x_RTD)
        torch.testing.assert_close(clean.activations[hook], x_RTD)
        torch.testing.assert_close(clean.of(hook).final_RTD, one.final_hidden(TOKENS))
        again_RTD = suffixes.run(hook, clean, x_RTD)
        torch.testing.assert_close(again_RTD, one.final_hidden(TOKENS), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found[HOOK], found[theirs])
    with pytest.raises(ConfigError, match=r"site.models: models.1.* is of a model beside .*, which alone is read"):
        harvest_together(models[:1], TOKENS, [theirs])
    with pytest.raises(ConfigError, match=r"is of another model than"):
        harvest(models[0], TOKENS, [theirs])


def test_other_vocabularies(llama_folder: Path, tmp_path: Path, build_model: Callable[..., Path]) -> None:
    other = Path(shutil.copytree(llama_folder, tmp_path / "other"))
    entries = json.loads((other / "tokenizer.json").read_text())
    vocabulary = entries["model"]["vocab"]
    (a, one), (b, two) = list(vocabulary.items())[5:7]
    vocabulary[a], vocabulary[b] = two, one
    (other / "tokenizer.json").write_text(json.dumps(entries))
    with pytest.raises(ConfigError, match=r"^site.models=.*: their tokenizers differ .*; give two models of") as told:
        load_models(pair(llama_folder, other))
    assert "\n" not in str(told.value)
    larger = build_model("larger", LlamaConfig, vocab_size=310, num_hidden_layers=2)
    (first, second) = (tmp_path / name for name in ("first", "second"))
    for folder, source in ((first, llama_folder), (second, larger)):
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    with pytest.raises(ConfigError, match=r"their vocabularies are of 300 and 310 tokens; give two of one"):
        load_models(pair(first, second))
    load_models(pair(llama_folder, larger))  # padded: the tokens are the same


def test_the_second_s_chat_template_is_used(llama_folder: Path, tuned_folder: Path, tmp_path: Path) -> None:
    chat = Path(shutil.copytree(tuned_folder, tmp_path / "chat"))
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    (chat / "chat_template.jinja").write_text(template)
    assert AutoTokenizer.from_pretrained(llama_folder).chat_template is None
    assert load_models(pair(llama_folder, chat))[0].tokenizer.chat_template == template


def test_a_second_that_cannot_be_loaded(llama_folder: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(llama_folder, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:-50_000])
    with pytest.raises(ConfigError, match=r"^site.models=.*: model.path=.*broken") as told:
        load_models(pair(llama_folder, broken))
    assert "\n" not in str(told.value)
