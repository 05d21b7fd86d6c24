"""Another model than a sweep's, for the same tokens."""

from dataclasses import replace
from typing import Any

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.facts import FACTS, model_facts
from sae_sweep.model.load import load_tokenizer


def other_model(key: str, config: ModelConfig, path: str) -> ModelConfig:
    """The config of another folder or hub id, run as this one is. Raises ConfigError, which begins with the key, where
    its tokens are others."""
    nothing: dict[str, Any] = dict.fromkeys(FACTS)
    other = replace(config, path=path, name=path, revision=None, **nothing)
    try:
        mine, theirs = (_vocabulary(one) for one in (config, other))
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
    if mine != theirs:
        raise ConfigError(f"{key}: {path} has another vocabulary than the sweep's model; give models of one tokenizer")
    return other


def _vocabulary(config: ModelConfig) -> object:
    tokenizer = load_tokenizer(config)
    return model_facts(config).vocab_size if tokenizer is None else tokenizer.get_vocab()
