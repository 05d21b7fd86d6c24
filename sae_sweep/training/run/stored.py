"""Activations that exist already as the source of a group: no language model."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.activations.stored import StoredStream
from sae_sweep.config.schema import MemberConfig
from sae_sweep.data.kinds import modelless_kind
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import Evaluator
from sae_sweep.evaluation.stored import StoredEvaluator
from sae_sweep.model.load import resolve_device, resolve_dtype
from sae_sweep.tracking.progress import Progress


class StoredSource:
    """Activations that some model gave, from files or from Python."""

    splicing = None

    def __init__(self, config: MemberConfig, progress: Progress) -> None:
        self._config = config
        self.device = resolve_device(config.model.device)
        progress.stage("opening the activations")
        kind = modelless_kind(config.data.kind)
        assert kind is not None
        self._data = kind.open_stored(config.data, config.evaluation.tokens)
        self.replays = self._data.replays
        self._stream = StoredStream(self._data, config.data, resolve_dtype(config.model.dtype), self.device)

    def calibration(self) -> Block:
        return self.block(0)

    def block(self, index: int) -> Block:
        return self._stream.block(index)

    def pays_ahead(self, index: int) -> bool:
        return True  # it is read from disk

    def unigrams(self, hooks: Sequence[str]) -> dict[str, Tensor]:
        raise ConfigError("sae.lookup: stored activations have no model to look tokens up in; leave it none")

    def evaluator(self, positions: str, means: Mapping[str, Tensor], watched: Sequence[str] = ()) -> Evaluator:
        return StoredEvaluator(self._stream)

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
