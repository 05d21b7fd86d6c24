"""Where an SAE comes from: what its folder says of its model, its site, its tokens and its training."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from sae_sweep.api.model import Model, open_model, open_second
from sae_sweep.config.files import config_folder, config_of, saved_config
from sae_sweep.config.schema import MemberConfig, ModelConfig
from sae_sweep.data.kinds import modelless_kind
from sae_sweep.errors import ConfigError
from sae_sweep.folder import names
from sae_sweep.folder.record import read_record
from sae_sweep.host.json_files import read_object
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.second import models_of
from sae_sweep.model.sites import model_of, parse_hook
from sae_sweep.plan.fingerprints import MODEL_KEYS, check_same
from sae_sweep.saes.inference import InferenceSae


@dataclass(frozen=True)
class Home:
    """The folder of one SAE, and what its cfg.json says besides the SAE itself."""

    folder: Path
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that it reads. Raises ConfigError where nothing says them."""
        found = self.metadata.get("hook_names") or [self.metadata.get("hook_name")]
        if not all(isinstance(hook, str) for hook in found):
            raise ConfigError(f"{self.folder}: nothing says which hook this SAE reads; give hook= to load")
        return tuple(found)

    @property
    def written(self) -> tuple[str, ...]:
        """The hooks that it reconstructs."""
        several = self.metadata.get("hook_names_out")
        if isinstance(several, list) and all(isinstance(hook, str) for hook in several):
            return tuple(several)
        output = self.metadata.get("hook_name_out")
        return (output,) if isinstance(output, str) else self.hooks

    @property
    def is_member(self) -> bool:
        """Whether a sweep trained it."""
        return self._config_file.is_file()

    @property
    def _config_file(self) -> Path:
        """A member's, which its milestones share."""
        member = self.folder.parents[1] if self.folder.parent.name == names.MILESTONES else self.folder
        return member / names.CONFIG

    @cached_property
    def config(self) -> MemberConfig:
        """What the member was asked to be. Raises ConfigError for an SAE that no sweep trained."""
        if not self.is_member:
            raise ConfigError(
                f"{self.folder} has no {names.CONFIG}: no sweep trained this SAE, so nothing says its data"
            )
        return saved_config(self._config_file)

    @property
    def provenance(self) -> dict[str, Any]:
        """What provenance.json says. Raises ConfigError where there is none."""
        try:
            return read_object(self.folder / names.PROVENANCE)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.folder}: {names.PROVENANCE} cannot be read ({error})") from error

    def model(self, device: str | None, dtype: str | None, second: bool = False) -> Model:
        """The language model, on another device or in another dtype where these are given; or the second of two. Raises
        ConfigError where there is no such, and where a sweep trained the SAE, and the model is no longer what it was
        then."""
        config = self._model_config()
        if self.is_member:
            self._check_model()
        config = replace(config, device=device or config.device, dtype=dtype or config.dtype)
        config = replace(config, device_map=None if device else config.device_map)
        if not second:
            return open_model(config)
        found = self.second(config)
        if not found:
            raise ConfigError(f"{self.folder}: this SAE is of one model")
        return open_second(found[0])

    def second(self, first: ModelConfig) -> tuple[ModelConfig, ...]:
        """Of a crosscoder over two models the second, run as the first is; else nothing. Raises ConfigError where
        nothing says it."""
        if not any(map(model_of, self.hooks)):
            return ()
        found = models_of(self.config)[1:]
        return tuple(replace(one, device=first.device, dtype=first.dtype, backend=first.backend) for one in found)

    def models(self, model: Model) -> tuple[LanguageModel, ...]:
        """All models that it reads, given one of them."""
        run = model.running
        if self.number(run):
            device = run.config.device if run.config.device_map is None else None
            return self.model(device, run.config.dtype).running, run
        return (run, *(open_second(one).running for one in self.second(run.config)))

    def number(self, model: LanguageModel) -> int:
        """Which of the models that it reads this one is."""
        path = model.config.path
        second = [one.path for one in self.second(model.config)]
        return int(path != self.metadata.get("model_name") and path in second)

    def _check_model(self) -> None:
        place = self._config_file.parent
        try:
            kept = read_record(place.parent)["members"][place.name].get("content") or {}
        except (ConfigError, KeyError):
            return  # it lies alone: nothing says what its model was
        check_same({key: about for key, about in kept.items() if key in MODEL_KEYS}, self.config, place.name)

    def _model_config(self) -> ModelConfig:
        if self.is_member:
            made = modelless_kind(self.config.data.kind)
            if made is not None:
                raise ConfigError(f"{self.folder}: this SAE is of {made.NOUN}, which have no language model")
            return self.config.model
        name = self.metadata.get("model_name")
        if not isinstance(name, str):
            raise ConfigError(f"{self.folder}: nothing says which model this SAE is of; give model= to load")
        known = (config_folder() / "model" / f"{name}.yaml").is_file()
        return config_of({"model": name} if known else {"model": "local", "model.path": name}).model

    def density(self) -> Tensor:
        """[F]: the share of held-out tokens that each latent fires on, as judging left it."""
        file = self.folder / names.SPARSITY
        if not file.is_file():
            raise ConfigError(f"{self.folder} has no {names.SPARSITY}, which says how often latents fire")
        return (10 ** load_file(file)["sparsity"].double() - 1e-10).clamp(min=0).float()

    def facts(self, sae: InferenceSae) -> dict[str, Any]:
        """What `cfg` says: the names that SAEBench and SAELens ask for."""
        hook = self.metadata.get("hook_name", "")
        return {
            "architecture": sae.form.saelens,
            "d_in": sae.d,
            "d_out": sae.d_out,
            "d_sae": sae.width,
            "model_name": self.metadata.get("model_name", ""),
            "hook_name": hook,
            "hook_layer": parse_hook(hook).layer,
            "hook_head_index": None,
            "context_size": self.metadata.get("context_size"),
            "dataset_path": self.metadata.get("dataset_path", ""),
            "prepend_bos": self.metadata.get("prepend_bos", True),
            "training_tokens": self.metadata.get("training_tokens"),
            "apply_b_dec_to_input": sae.subtract_b_dec,
            "normalize_activations": "none",
            "finetuning_scaling_factor": False,
            "activation_fn_str": "relu",
            "model_from_pretrained_kwargs": {},
            "dataset_trust_remote_code": False,
            "seqpos_slice": (None,),
        }
