"""Where a group's activations come from: a language model at some sites, files, or a generator."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.activations.cache import open_cache
from sae_sweep.activations.first_block import FirstBlock
from sae_sweep.activations.sequences import WholePasses
from sae_sweep.activations.stream import ActivationStream
from sae_sweep.activations.toy import ToyStream
from sae_sweep.activations.unigrams import unigram_activations
from sae_sweep.config.schema import MemberConfig
from sae_sweep.data.kinds import modelless_kind
from sae_sweep.data.packing import Ids
from sae_sweep.data.parting import parting
from sae_sweep.data.tokens import Judged, judged_rows, open_tokens
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import Evaluator
from sae_sweep.evaluation.heldout import HeldOut
from sae_sweep.evaluation.language_model import LanguageModelEvaluator
from sae_sweep.evaluation.toy import ToyEvaluator
from sae_sweep.model.harvest import harvest
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.load import resolve_device, resolve_dtype
from sae_sweep.model.together import harvest_together, load_models, smallest_vocabulary
from sae_sweep.model.within import within_documents
from sae_sweep.tracking.progress import Progress, quiet
from sae_sweep.training.devices.gathering import Gathering
from sae_sweep.training.devices.ranks import ALONE, Ranks
from sae_sweep.training.run.stored import StoredSource
from sae_sweep.training.step.objectives import Splicing


class Source(Protocol):
    """What a group is trained on, and how its members are evaluated."""

    device: torch.device

    replays: bool
    """Whether a block can be had again: else a checkpoint is of no use."""

    @property
    def splicing(self) -> Splicing | None:
        """What objectives that run the model on need, where some member has such."""

    def calibration(self) -> Block:
        """The first block, for scales and means; training begins with it. Raises ConfigError where it cannot be had."""

    def block(self, index: int) -> Block:
        """The block of training activations at `index`."""

    def pays_ahead(self, index: int) -> bool:
        """Whether a block can be made in another thread while steps are taken, without slowing them."""

    def in_smaller_passes(self) -> bool:
        """Make blocks with less memory from here on, the same but for rounding; False where that is not to be had."""

    def unigrams(self, hooks: Sequence[str]) -> dict[str, Tensor]:
        """[V, d] by hook: activations of each token by itself, for lookup tables. Raises ConfigError without tokens."""

    def evaluator(self, positions: str, means: Mapping[str, Tensor], watched: Sequence[str] = ()) -> Evaluator:
        """The evaluator for one value of `evaluation.positions`; `means` are the mean activations [d] by the hooks that
        are spliced, `watched` hooks at which spliced and clean passes are compared."""

    def metadata(self) -> dict[str, Any]:
        """What cfg.json says of it."""

    def account(self, blocks: int) -> str | None:
        """What became of the data when so many blocks have been read, in a line; None where none is due."""


def open_source(
    members: Sequence[MemberConfig],
    hooks: Sequence[str],
    spliced: Sequence[str] = (),
    ranks: Ranks = ALONE,
    progress: Progress | None = None,
) -> Source:
    """Load what the members of a group share, which have these configs; `hooks` are those of this rank's, and `spliced`
    the sites for which their objectives need whole passes. Raises ConfigError."""
    config = members[0]
    made = modelless_kind(config.data.kind)
    if made is not None:
        return StoredSource(config, progress or quiet()) if made.STORED else ToySource(config)
    return LanguageModelSource(config, hooks, members, spliced, ranks, progress=progress)


class LanguageModelSource:
    """A frozen language model reading tokens."""

    replays = True

    def __init__(
        self,
        config: MemberConfig,
        hooks: Sequence[str],
        members: Sequence[MemberConfig] = (),
        spliced: Sequence[str] = (),
        ranks: Ranks = ALONE,
        loaded: Sequence[LanguageModel] = (),
        progress: Progress | None = None,
        first_block: FirstBlock | None = None,
    ) -> None:
        """`members` say how much of the stream will be read; where there are none, the config does. `loaded` are those
        of the config's models that are loaded already, `first_block` what is kept of that."""
        self._config, progress = config, progress or quiet()
        progress.stage("loading the model")
        models = load_models(config, loaded)
        self._parting = parting(config.data, models[0].tokenizer)
        self.models = tuple(within_documents(one, self._parting) for one in models)
        self.model = self.models[0]
        self.device = self.model.device
        self._vocabulary = smallest_vocabulary(models)
        progress.stage("tokenising")
        self._tokens = open_tokens(config.data, config.evaluation.tokens, self.model.tokenizer, self._vocabulary)
        self._hooks = tuple(hooks)
        self._cache = open_cache(members or [config], self.models)
        memory = None if self._cache is None else self._cache.recall
        self._gathering = Gathering(ranks, memory, config.data.rows_per_forward)
        self.splicing = Splicing(self.model, spliced, config.data.rows_per_forward, hooks) if spliced else None
        whole = WholePasses(self.splicing.suffix) if self.splicing else None
        largest = (first_block or FirstBlock()).largest_norms
        self._stream = ActivationStream(
            *(self.model, self._tokens.training, hooks, config.data, self._harvest),
            *(self._gathering.recall, whole, progress.read, largest),
        )

    def _harvest(self, model: LanguageModel, tokens_RT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        return harvest_together(self.models, tokens_RT, hooks)

    def calibration(self) -> Block:
        try:
            return self.block(0)
        except IndexError as error:  # a position beyond a table of position embeddings, most likely
            data, name = self._config.data, self._config.model.path or self._config.model.name
            raise ConfigError(
                f"data.context={data.context}: {name} cannot read such rows (IndexError: {error}); lower it"
            ) from error

    def block(self, index: int) -> Block:
        return self._gathering.meeting(partial(self._stream.block, index))

    def pays_ahead(self, index: int) -> bool:
        if self.splicing is not None:
            return False  # steps run the model too
        return self.device.type == "cuda" or (self._cache is not None and self._cache.holds(index, self._hooks))

    def in_smaller_passes(self) -> bool:
        return self._stream.in_smaller_passes()

    def unigrams(self, hooks: Sequence[str]) -> dict[str, Tensor]:
        return unigram_activations(self.model, hooks, harvest)

    def training_rows(self, index: int) -> tuple[Ids, int]:
        """The rows of the block at an index, as they are read, and which epoch the first is of, from 0."""
        return self._tokens.training.block(index)

    def judged_rows(self, config: MemberConfig) -> Judged:
        """Rows of the config's data to judge on, of which training on this source read none. Raises ConfigError."""
        asked = config.data, config.evaluation.tokens
        return judged_rows(self._tokens, self._config.data, *asked, self.model.tokenizer, self._vocabulary)

    def evaluator(
        self,
        positions: str,
        means: Mapping[str, Tensor],
        watched: Sequence[str] = (),
        rows: Ids | None = None,
        core: bool = False,
    ) -> LanguageModelEvaluator:
        """On the held-out rows, or on others; with what SAEBench's core evaluation has of its own if asked for."""
        heldout = HeldOut(
            tokens_RT=torch.from_numpy(self._tokens.heldout if rows is None else rows).long(),
            special_ids=self.model.special_ids,
            bos_id=self.model.bos_id,
            rows_per_forward=self._config.data.rows_per_forward,
            every_position=positions == "all",
            largest_norms=self._stream.largest_norms,
            parting=self._parting,
            core=core,
        )
        return LanguageModelEvaluator(self.models, heldout, means, tuple(dict.fromkeys((*self._hooks, *watched))))

    def metadata(self) -> dict[str, Any]:
        data, bos_id = self._config.data, self.model.bos_id
        told = {"model_adapter": self._config.model.adapter, "model_quantize": self._config.model.quantize}
        return {
            "model_name": self._config.model.path or self._config.model.name,
            **{key: value for key, value in told.items() if value is not None},
            **({} if self._config.site.models is None else {"model_names": self._config.site.models}),
            "dataset_path": data.path or data.kind,
            "context_size": data.context,
            "prepend_bos": bos_id is not None and bool((self._tokens.heldout[:, 0] == bos_id).all()),
            "exclude_special_tokens": True,
        }

    def account(self, blocks: int) -> str:
        return self._tokens.account(blocks * self._config.data.block_rows)


class ToySource:
    """Synthetic activations: no tokens, no model, known latents."""

    splicing, replays = None, True

    def __init__(self, config: MemberConfig) -> None:
        self._config = config
        self.device = resolve_device(config.model.device)
        self._stream = ToyStream(config.data, resolve_dtype(config.model.dtype), self.device)

    def calibration(self) -> Block:
        return self.block(0)

    def block(self, index: int) -> Block:
        return self._stream.block(index)

    def pays_ahead(self, index: int) -> bool:
        return self.device.type == "cuda"

    def in_smaller_passes(self) -> bool:
        return False

    def unigrams(self, hooks: Sequence[str]) -> dict[str, Tensor]:
        raise ConfigError("sae.lookup: synthetic data has no tokens; leave it none")

    def evaluator(self, positions: str, means: Mapping[str, Tensor], watched: Sequence[str] = ()) -> Evaluator:
        return ToyEvaluator(self._stream, self._config)

    def judged(self, config: MemberConfig) -> tuple[Evaluator, str]:
        """The evaluator on as many activations as a config says, and a line that says so. Raises ConfigError for others
        than these SAEs were trained on."""
        if config.data != self._config.data:
            raise ConfigError("data: synthetic activations are judged on more of their own alone; leave data as it is")
        told = f"data: {config.evaluation.tokens:,.0f} activations drawn to judge on, none of which training had"
        return ToyEvaluator(self._stream, config), told

    def metadata(self) -> dict[str, Any]:
        return {
            "model_name": self._config.data.kind,
            "dataset_path": self._config.data.kind,
            "context_size": self._config.data.context,
            "prepend_bos": False,
            "exclude_special_tokens": False,
        }

    def account(self, blocks: int) -> None:
        """It is made as it is needed."""
