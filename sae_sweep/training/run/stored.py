"""Activations that exist already as the source of a group: no language model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.activations.first_block import FirstBlock
from sae_sweep.activations.stored import StoredStream
from sae_sweep.config.schema import MemberConfig
from sae_sweep.data.kinds import modelless_kind
from sae_sweep.data.stored.feed import Feed
from sae_sweep.data.tokens import check_alike, read_in_training
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import Evaluator
from sae_sweep.evaluation.stored import StoredEvaluator
from sae_sweep.model.load import resolve_device, resolve_dtype
from sae_sweep.tracking.progress import Progress


class StoredSource:
    """Activations that some model gave, from files or from Python."""

    splicing = None

    def __init__(self, config: MemberConfig, progress: Progress, first_block: FirstBlock | None = None) -> None:
        """`first_block` is what is kept of that."""
        self._config = config
        self.device = resolve_device(config.model.device)
        progress.stage("opening the activations")
        self._data = _opened(config)
        self.replays = self._data.replays
        dtype, largest = resolve_dtype(config.model.dtype), (first_block or FirstBlock()).largest_norms
        self._stream = StoredStream(self._data, config.data, dtype, self.device, largest)

    def calibration(self) -> Block:
        return self.block(0)

    def block(self, index: int) -> Block:
        return self._stream.block(index)

    def pays_ahead(self, index: int) -> bool:
        return True  # it is read from disk

    def in_smaller_passes(self) -> bool:
        return False

    def unigrams(self, hooks: Sequence[str]) -> dict[str, Tensor]:
        raise ConfigError("sae.lookup: stored activations have no model to look tokens up in; leave it none")

    def evaluator(self, positions: str, means: Mapping[str, Tensor], watched: Sequence[str] = ()) -> Evaluator:
        return StoredEvaluator(self._stream)

    def judged(self, config: MemberConfig) -> tuple[Evaluator, str]:
        """The evaluator on the activations of a config, of which training on this source read none, and a line that
        says which these are. Raises ConfigError where more are asked for than were held out of what was trained on."""
        trained, asked = self._config.data, config.data
        if asked.kind != trained.kind:
            raise ConfigError(f"data.kind={asked.kind}: these SAEs are of data.kind={trained.kind}, without a model")
        path = asked.heldout_path if asked.path == trained.path else asked.path
        feed, rows = self._data, math.ceil(config.evaluation.tokens / asked.context)
        if path is not None:
            if read_in_training(replace(asked, path=path, heldout_path=None), trained):
                raise ConfigError(f"data.path={path}: training read it; give others, or data.heldout_path=")
            feed = _opened(replace(config, data=replace(asked, path=trained.path, heldout_path=path)))
        else:
            check_alike(asked, trained)
        if path is None and rows > feed.heldout_rows:
            raise ConfigError(
                f"evaluation.tokens={config.evaluation.tokens:g}: {feed.label} has no more than"
                f" {feed.heldout_rows * asked.context:,} activations that training did not read; give"
                " data.heldout_path=, or other data"
            )
        rows = min(rows, feed.heldout_rows)
        place = f"{path}, which training did not read" if path else f"those held out of {feed.label}"
        told = f"data: {rows * asked.context:,} activations read to judge on, each once, of {place}"
        return StoredEvaluator(self._stream, feed, rows), told

    def metadata(self) -> dict[str, Any]:
        data = self._config.data
        return {
            "model_name": data.kind,
            "dataset_path": str(data.path),
            "context_size": data.context,
            "prepend_bos": False,
            "exclude_special_tokens": False,
        }

    def account(self, blocks: int) -> str:
        return self._data.account(blocks)


def _opened(config: MemberConfig) -> Feed:
    kind = modelless_kind(config.data.kind)
    assert kind is not None
    return kind.open_stored(config.data, config.evaluation.tokens)
