"""What SAEs are judged on again: tokens of a language model, or activations that there is no model for."""

import json
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sae_sweep.activations.first_block import FirstBlock
from sae_sweep.activations.scaling import site_statistics
from sae_sweep.config.reading import config_entries
from sae_sweep.config.schema import MemberConfig
from sae_sweep.config.values import shown
from sae_sweep.data.kinds import data_kind, modelless_kind
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import Evaluator, SplicedSae
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.sites import modelless_site, parse_hook, site_width
from sae_sweep.plan.fingerprints import digests, fingerprints, hashed
from sae_sweep.plan.limits import POSITIONS
from sae_sweep.tracking.progress import quiet
from sae_sweep.training.run.sources import LanguageModelSource, ToySource
from sae_sweep.training.run.stored import StoredSource

OF_TRAINING = ("attention", "block_rows", "cache", "max_norm_ratio", "rows_per_forward", "seed", "window_rows")
"""Keys of `data` that hold for judging too, as they were in training."""


class Court(Protocol):
    """Held-out activations, the same for every SAE that is judged on them."""

    device: torch.device
    account: str
    """Which these are, and what became of what was read with them, in a line for people."""
    stamp: bytes
    """Of what they are: two courts of the same stamp give an SAE the same numbers at the same positions."""

    def widths(self, hooks: Sequence[str]) -> dict[str, int | None]:
        """Numbers of an activation by hook; None where that is not known beforehand."""

    @property
    def largest_id(self) -> int | None:
        """The largest token id among them; None where there are no tokens."""

    @property
    def rows(self) -> int | None:
        """How many rows of tokens there are; None without."""

    def evaluator(self, positions: str, *, core: bool = False) -> Evaluator:
        """What evaluates SAEs on them at such positions; `core` asks for what SAEBench has of its own, too."""


def court(
    trained: MemberConfig,
    asked: MemberConfig,
    saes: Sequence[SplicedSae],
    members: Sequence[MemberConfig] = (),
    model: LanguageModel | None = None,
    first_block: FirstBlock | None = None,
) -> Court:
    """That of SAEs trained as one config says, on what another one asks for. `members` are all that were trained on
    this stream, `model` its language model where that is loaded already, `first_block` what members keep of that.
    Raises ConfigError for what training read, and for keys that judging does not go by."""
    _check_asked(trained, asked)
    first_block = first_block or FirstBlock()
    if modelless_kind(trained.data.kind) is not None:
        return ModellessCourt(trained, asked, first_block)
    return LanguageModelCourt(trained, asked, saes, members, model, first_block)


def _check_asked(trained: MemberConfig, asked: MemberConfig) -> None:
    """Raises ConfigError where what is asked for has another value of a key that is of training alone, and where its
    positions are none that there are."""
    if asked.evaluation.positions not in POSITIONS:
        known = " and ".join(POSITIONS)
        raise ConfigError(f"evaluation.positions={asked.evaluation.positions}: there are {known}")
    pairs = [(f"data.{key}", getattr(asked.data, key), getattr(trained.data, key)) for key in OF_TRAINING]
    for key, value, own in [*pairs, ("evaluation.every", asked.evaluation.every, trained.evaluation.every)]:
        if value != own:
            raise ConfigError(
                f"{key}={shown(value)}: SAEs are judged with what they were trained with, {shown(own)}; leave it out"
            )


class LanguageModelCourt:
    """Rows of tokens that a language model reads, each SAE spliced into it at its site."""

    def __init__(
        self,
        trained: MemberConfig,
        asked: MemberConfig,
        saes: Sequence[SplicedSae],
        members: Sequence[MemberConfig],
        model: LanguageModel | None,
        first_block: FirstBlock,
    ) -> None:
        self._hooks = tuple(dict.fromkeys(hook for one in saes for hook in one.hooks))
        reads = tuple(dict.fromkeys(hook for one in saes for hook in one.inputs))
        self._watched = tuple(dict.fromkeys(hook for one in saes for hook in one.watched))
        hooks, loaded = tuple(dict.fromkeys((*self._hooks, *reads))), () if model is None else (model,)
        self._source = LanguageModelSource(trained, hooks, members, loaded=loaded, first_block=first_block)
        self.device = self._source.device
        judged = self._source.judged_rows(asked)
        self._rows_RT, self.account, self.stamp = judged.rows, judged.account, judged.rows.tobytes()
        widths = self.widths(self._hooks)
        kept = first_block.of(self._hooks).means
        fit = all(widths[hook] in (None, len(mean_D)) for hook, mean_D in kept.items())
        self._means = kept if fit and len(kept) == len(self._hooks) else None

    def widths(self, hooks: Sequence[str]) -> dict[str, int | None]:
        return {hook: site_width(parse_hook(hook), self._source.model.facts) for hook in hooks}

    @property
    def largest_id(self) -> int:
        return int(np.maximum(self._rows_RT, ~self._rows_RT).max())  # ids that do not count are ~id

    @property
    def rows(self) -> int:
        return len(self._rows_RT)

    def evaluator(self, positions: str, *, core: bool = False) -> Evaluator:
        means = {hook: mean_D.to(self.device) for hook, mean_D in self._mean_activations().items()}
        return self._source.evaluator(positions, means, self._watched, self._rows_RT, core)

    def _mean_activations(self) -> Mapping[str, Tensor]:
        """[d] by hook, of the block that members were calibrated on: what mean ablation puts in place."""
        if self._means is None:
            statistics = site_statistics(self._source.calibration())
            self._means = {hook: statistics[hook].mean for hook in self._hooks}
        return self._means


class ModellessCourt:
    """Activations as they are: nothing is spliced, so there is neither CE nor KL."""

    largest_id = rows = None

    def __init__(self, trained: MemberConfig, asked: MemberConfig, first_block: FirstBlock) -> None:
        kind = modelless_kind(trained.data.kind)
        assert kind is not None
        source = StoredSource(trained, quiet(), first_block) if kind.STORED else ToySource(trained)
        self.device = source.device
        self._evaluator, self.account = source.judged(asked)
        self._hook, self._width = modelless_site(trained.data.kind).hook, kind.dimensions(trained.data)
        data = config_entries(asked)["data"]
        about = {key: data[key] for key in data_kind(asked.data.kind).HELDOUT} | digests(hashed(fingerprints(asked)))
        self.stamp = json.dumps([about, asked.evaluation.tokens], sort_keys=True).encode()

    def widths(self, hooks: Sequence[str]) -> dict[str, int | None]:
        return dict.fromkeys(hooks, self._width)

    def evaluator(self, positions: str, *, core: bool = False) -> Evaluator:
        if core:
            raise ConfigError("eval: --format=saebench asks what a language model loses, and there is none here")
        return self._evaluator
