"""Several models that read the same tokens: activations and suffix passes of all, by hooks that say whose they are
(`sites.of_model`)."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from sae_sweep.config.schema import MemberConfig, ModelConfig
from sae_sweep.config.values import shown
from sae_sweep.errors import ConfigError
from sae_sweep.model.harvest import harvest
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.load import load_model
from sae_sweep.model.second import models_of
from sae_sweep.model.sites import model_of, of_model, own_hook
from sae_sweep.model.suffix import CleanPass, Suffix

Models = Sequence[LanguageModel]


def load_models(config: MemberConfig, loaded: Models = ()) -> tuple[LanguageModel, ...]:
    """The models that a member's tokens are read by; `loaded` are the first of them, as far as they are loaded already.
    The first one's tokenizer makes the tokens; it gets the second's chat template where it has none.

    Raises ConfigError where they cannot be loaded, and where a token would not be the same to both.
    """
    first, *others = models_of(config)
    key = f"site.models={shown(config.site.models)}"
    found = [*loaded] or [load_model(first)]
    models = (*found, *(_loaded(key, other) for other in others[len(found) - 1 :]))
    for other in models[1:]:
        _check_same_tokens(key, models[0], other)
        told, asked = models[0].tokenizer, other.tokenizer
        if told is not None and asked is not None and not getattr(told, "chat_template", None):
            told.chat_template = getattr(asked, "chat_template", None)
    return models


def smallest_vocabulary(models: Models) -> int:
    """Of token ids that every model has an embedding for."""
    return min(model.facts.vocab_size for model in models)


def harvest_together(models: Models, tokens_RT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
    """The activation [R, T, d] of each hook, by one forward pass of each model that one is of (`harvest`)."""
    found: dict[str, Tensor] = {}
    for number, own in _by_model(hooks, models).items():
        found |= _named(harvest(models[number], tokens_RT, own), number)
    return {hook: found[hook] for hook in hooks}


class Suffixes:
    """Suffix passes of several models for the sites of these hooks (`Suffix`)."""

    def __init__(self, models: Models, hooks: Sequence[str], read: Sequence[str] = ()) -> None:
        """Clean passes record the hooks of `read` too."""
        spliced, recorded = _by_model(hooks, models), _by_model(read, models)
        self.models = tuple(models)
        self._each = [Suffix(one, spliced.get(n, ()), recorded.get(n, ())) for n, one in enumerate(models)]

    @property
    def device(self) -> torch.device:
        """Where all of them are."""
        return self.models[0].device

    def clean(self, tokens_RT: Tensor) -> CleanPass:
        """One whole forward pass of each model; that of the first, with the others'."""
        first, *others = (one.clean(tokens_RT) for one in self._each)
        if not others:
            return first
        activations = dict(first.activations)
        for number, other in enumerate(others, 1):
            activations |= _named(other.activations, number)
        return CleanPass(first.tokens_RT, activations, first.final_RTD, tuple(others))

    def run(self, hook: str, clean: CleanPass, replacement_RTd: Tensor) -> Tensor:
        """The final hidden states [R, T, D] of the model that the hook is of, with its activation replaced."""
        return self._each[model_of(hook)].run(own_hook(hook), clean.of(hook), replacement_RTd)

    def run_together(
        self, clean: CleanPass, values: Mapping[str, Tensor], where_RT: Tensor, later: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The same with several hooks of one model, at the positions of a mask; and the activations [R, T, d] that it
        led to at those of the later hooks that are of this model (`Suffix.run_together`)."""
        hook = next(iter(values))
        number = model_of(hook)
        own = {own_hook(each): value_RTd for each, value_RTd in values.items()}
        asked = [own_hook(each) for each in later if model_of(each) == number]
        final_RTD, found = self._each[number].run_together(clean.of(hook), own, where_RT, asked)
        return final_RTD, _named(found, number)


def _by_model(hooks: Iterable[str], models: Models) -> dict[int, list[str]]:
    """The hooks of each model, as it calls them. Raises ConfigError for one of a model that is not there."""
    found: dict[int, list[str]] = {}
    for hook in hooks:
        if model_of(hook) >= len(models):
            raise ConfigError(f"site.models: {hook} is of a model beside {models[0].config.name}, which alone is read")
        found.setdefault(model_of(hook), []).append(own_hook(hook))
    return found


def _named(activations: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """A model's activations by hooks that say whose they are."""
    return {of_model(hook, number): activation for hook, activation in activations.items()}


def _loaded(key: str, config: ModelConfig) -> LanguageModel:
    try:
        return load_model(config)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def _check_same_tokens(key: str, first: LanguageModel, second: LanguageModel) -> None:
    """Raises ConfigError where the models' tokenizers, or without these the sizes of their vocabularies, differ."""
    if first.tokenizer is None or second.tokenizer is None:
        sizes = first.facts.vocab_size, second.facts.vocab_size
        if sizes[0] != sizes[1]:
            raise ConfigError(f"{key}: their vocabularies are of {sizes[0]} and {sizes[1]} tokens; give two of one")
        return
    mine, theirs = first.tokenizer.get_vocab(), second.tokenizer.get_vocab()
    token = next((each for each in {**mine, **theirs} if mine.get(each) != theirs.get(each)), None)
    if token is not None:
        ids = " and ".join("not there" if n is None else str(n) for n in (mine.get(token), theirs.get(token)))
        raise ConfigError(f"{key}: their tokenizers differ ({token!r} is {ids}); give two models of one tokenizer")
