"""From a member's config to the member: what it is, where it is, and what it is called.

Pure apart from looking at the model folder's config.json and whether data files exist. No torch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import Any

from sae_sweep.architectures.recipe import Run
from sae_sweep.config.reading import flat_entries
from sae_sweep.config.saved import later_keys
from sae_sweep.config.schema import LATER, OBJECTIVE_KEYS, MemberConfig, ModelConfig, SiteConfig
from sae_sweep.config.values import shown
from sae_sweep.data.kinds import modelless_kind
from sae_sweep.errors import ConfigError
from sae_sweep.model.adapters import adapter_folder
from sae_sweep.model.facts import FACTS, ModelFacts, check_context, model_facts, own_facts, stated_dtype
from sae_sweep.model.quantised import check_library
from sae_sweep.model.second import in_models, later_in_models, models_of
from sae_sweep.model.sites import ALL, INNER, Site, all_layers, later_sites, modelless_site, resolve_site, site_width
from sae_sweep.plan.limits import AUTO, check_config, check_width
from sae_sweep.plan.origin import check_origin, weights_hash
from sae_sweep.plan.schedules import Schedule, decay_fraction, resolve_schedule

LINES, MOST_STEPS = 200, 100
"""Of a member's curves: at least so many lines where it has as many steps, and at most so many steps between two."""
RUNTIME_KEYS = ("name", "output_dir", "dry_run", "tracking", "launcher")
"""Top-level keys that do not change what a member is."""
RUNTIME_MODEL_KEYS = ("name", "device", "device_map", *FACTS)
"""The same under `model`; the facts follow from the path."""
_NEVER = object()
RUNTIME_DATA_KEYS = ("cache", "max_bad_records")
"""The same under `data`."""
RUNTIME_TRAINING_KEYS = ("checkpoint_minutes", "checkpoint_tokens", "milestones")
"""The same under `training`."""
OBJECTIVE_ENTRIES = {"objective", *(key for keys in OBJECTIVE_KEYS.values() for key in keys)}
"""The same under `training`, where the objective does not read them."""


@dataclass(frozen=True)
class Member:
    """One SAE of the sweep, with all that follows from its config."""

    config: MemberConfig
    identity: str
    """Hash of the config without its runtime keys: 16 hex digits."""
    label: str
    """The name of its folder and of its wandb run."""
    site: Site
    d: int
    """Numbers per position at the site; where a transcoder reads, at all sites of a crosscoder."""
    width: int
    """Latents; of all layers."""
    schedule: Schedule
    d_out: int
    """Numbers per position of what it reconstructs."""
    later: tuple[str, ...] = ()
    """Hooks after the site at which e2e_downstream compares."""
    watched: tuple[str, ...] = ()
    """Hooks after the site at which evaluation does (`evaluation.later_sites`)."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """What keys of `sae` that are null stand for where its inputs say it; nothing before these are read."""

    @property
    def widths(self) -> dict[str, int]:
        """Numbers per position by hook."""
        places, site = len(self.site.places), self.site
        return dict.fromkeys(site.reads, self.d // places) | dict.fromkeys(site.writes, self.d_out // places)

    @property
    def encoder_numbers(self) -> int:
        """Of its W_enc: multiply-adds of an encoder product, per token."""
        return prod(self.parameters["W_enc"])

    @property
    def decoder_numbers(self) -> int:
        """The same of its W_dec."""
        return prod(self.parameters["W_dec"])

    @property
    def resolved(self) -> MemberConfig:
        """Its config with what it left to the recipe, the width, the layer and its inputs, as they are."""
        config, schedule = self.config, self.schedule
        run = Run(schedule.total_steps, config.training.batch_size, self.d, self.width)
        share = decay_fraction(config.training, config.sae.training_recipe(run))
        same = ("lr", "bias_lr", "beta1", "beta2", "eps", "clip", "lr_warmup_steps", "sparsity_warmup_steps")
        decay = {"lr_decay_fraction": share, "lr_schedule": schedule.lr_schedule if share else "constant"}
        found = {**decay, **{key: getattr(schedule, key) for key in same}}
        if config.training.objective == "e2e_downstream":
            found["downstream_sites"] = len(self.later)
        training = {key: value for key, value in found.items() if getattr(config.training, key) is None}
        stands = {**config.sae.resolved(self.d_out), **self.measured}
        knob = config.sae.knob()  # one beside `sae.l0` would be a second one
        sae = {key: value for key, value in stands.items() if key != knob and getattr(config.sae, key) is None}
        layer = self.site.layer if config.site.kind is not None and config.site.across is None else config.site.layer
        return replace(
            config,
            tracking=replace(config.tracking, log_every=self.log_every),
            site=replace(config.site, layer=layer),
            model=self._model,
            sae=replace(config.sae, width=self.width // self.site.layers, expansion=None, **sae),
            training=replace(config.training, **training),
        )

    @property
    def _model(self) -> ModelConfig:
        """Its model with the sizes that its config.json says."""
        model = self.config.model
        if modelless_kind(self.config.data.kind) is not None:
            return model
        facts = model_facts(model)
        return replace(model, **{name: getattr(facts, name) for name in FACTS})

    @property
    def log_every(self) -> int:
        """Steps between two lines of its curves."""
        asked = self.config.tracking.log_every
        return max(1, min(MOST_STEPS, self.schedule.total_steps // LINES)) if asked is None else asked

    @property
    def words(self) -> str:
        """What it is, for people: a line."""
        config, schedule = self.config, self.schedule
        knob, value = sparsity(config)
        return (
            f"{config.sae.method()} at {self.site.name}: {self.width} latents of"
            f" {self.d // self.site.layers} numbers, {knob}"
            f" {shown(value)}, {schedule.total_steps} steps of {config.training.batch_size} tokens, lr"
            f" {schedule.lr:.3g}, seed {config.seed}"
        )

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every trained tensor but the lookup."""
        shapes, layers = self.config.sae.parameters(self.d, self.width), self.site.layers
        shapes |= {"W_enc": (self.width, self.d // layers), "b_dec": (self.d_out,)}
        shapes |= {"W_dec": (self.width * (layers + 1) // 2, self.d_out // layers)}
        return shapes | ({"W_skip": (self.d_out, self.d)} if self.config.sae.skip else {})


def resolve_member(config: MemberConfig, identity: str) -> Member:
    """The member of a config, without a label. Raises ConfigError for a value that cannot be trained."""
    check_config(config)
    later: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()
    made = modelless_kind(config.data.kind)
    if made is not None:
        site = modelless_site(config.data.kind)
        d = d_out = made.dimensions(config.data)
    else:
        config = replace(config, model=own_facts(config.model))
        models = models_of(config)
        for one in models:
            check_context(one, config.data.context)
        adapter_folder(config.model)
        check_library(config.model)
        facts, *others = map(model_facts, models)
        site = in_models(resolve_site(config.site, facts), config, [facts, *others])
        d = _width_at(config.site, site, facts)
        d_out = (site_width(site.output, facts) if site.output else None) or d
        later = _compared(config, site, facts)
        written = [place.written for place in site.places]
        watched = later_in_models(written, [facts, *others], config.evaluation.later_sites)
    key = "expansion" if config.sae.width is None else "width"
    width = check_width(f"sae.{key}", getattr(config.sae, key), d)
    width, sites = width * site.layers, 1 + len(site.beside)
    config.sae.check(sites * d_out, width)
    if site.layers > 1:
        config.sae.check_layers(site.layers)
    if config.init_from is not None:
        wanted = {"sae": config.sae.method(), "d": d, "width": width, "site": site.hook, "output": None}
        check_origin(config.init_from, wanted)
    schedule = resolve_schedule(config, sites * d, width)
    return Member(config, identity, "", site, sites * d, width, schedule, sites * d_out, later, watched)


def stated(config: MemberConfig) -> MemberConfig:
    """The config with what words of it stand for: `model.dtype=auto`, which is the checkpoint's own, and
    `site.across=all`. Raises ConfigError where nothing says it."""
    model, site, modelless = config.model, config.site, modelless_kind(config.data.kind) is not None
    if model.dtype == AUTO:
        if modelless:
            raise ConfigError(f"model.dtype=auto is a checkpoint's own, and data.kind={config.data.kind} has no model")
        model = replace(model, dtype=stated_dtype(model))
    if site.across == ALL and not modelless:
        site = replace(site, across=all_layers(model_facts(own_facts(model))))
    return replace(config, model=model, site=site)


def member_identity(config: MemberConfig) -> str:
    """Hash of the config without its runtime keys: 16 hex digits. Raises ConfigError as `stated` does."""
    return digest(identity_entries(stated(config)))[:16]


def identity_entries(config: MemberConfig) -> dict[str, Any]:
    """The config's entries without its runtime keys: what two members are compared by."""
    entries = {name: value for name, value in asdict(config).items() if name not in RUNTIME_KEYS}
    entries["model"] = {key: value for key, value in entries["model"].items() if key not in RUNTIME_MODEL_KEYS}
    entries["data"] = data_entries(config)
    training = entries["training"]
    if entries.pop("init_from") is not None:  # which weights, not where they lie
        entries["init_from"] = weights_hash(str(config.init_from))
    left_out = {*RUNTIME_TRAINING_KEYS, *OBJECTIVE_ENTRIES}
    for key, before in later_keys(config.sae.architecture).items():  # how members were before there was the key
        group, _, name = key.partition(".")
        if entries[group].get(name, before) == before:
            entries[group].pop(name, None)
    entries["training"] = {key: value for key, value in training.items() if key not in left_out}
    if not config.training.local:  # which is how members were before there was another objective
        entries["training"] |= config.training.objective_keys
    return entries


def changed(before: Mapping[str, Any], now: MemberConfig) -> dict[str, tuple[Any, Any]]:
    """By key, in what identity entries differ from those of a config: the old value, then the new one. A key that came
    later is what it stood for."""
    later = later_keys(now.sae.architecture)
    old, new = ({**later, **flat_entries(entries)} for entries in (before, identity_entries(now)))
    return {key: (old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)}


def sparsity(config: MemberConfig) -> tuple[str, float]:
    """The key that sets the member's sparsity, l0 or its architecture's knob, and its value."""
    knob = "l0" if config.sae.l0 is not None else config.sae.knob()
    return knob, getattr(config.sae, knob)


def data_entries(config: MemberConfig) -> dict[str, Any]:
    """The entries of `data` without its runtime keys, and without those of a later version that change nothing."""
    return _said({key: value for key, value in asdict(config.data).items() if key not in RUNTIME_DATA_KEYS}, "data.")


def _said(entries: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Entries without those of a later version that change nothing, and groups of them as well."""
    said = {key: value for key, value in entries.items() if value != LATER.get(prefix + key, _NEVER)}
    return {key: _said(value, f"{prefix}{key}.") if isinstance(value, dict) else value for key, value in said.items()}


def digest(entries: Mapping[str, Any]) -> str:
    """Hash of entries whatever their order, in hex digits."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _compared(config: MemberConfig, site: Site, facts: ModelFacts) -> tuple[str, ...]:
    """The hooks at which e2e_downstream compares. Raises ConfigError where there is none."""
    if config.training.objective != "e2e_downstream":
        return ()
    later = later_sites(site, facts.n_layers, config.training.downstream_sites)
    if not later:
        raise ConfigError(
            f"training.objective=e2e_downstream: the residual stream has no site after {site.hook}; take e2e, or a"
            " site in an earlier block"
        )
    return later


def _width_at(config: SiteConfig, site: Site, facts: ModelFacts) -> int:
    known = site_width(site, facts)
    if known is None and config.width is None:
        raise ConfigError(f"site.hook={site.hook} is of no known kind, so its width is needed too: add site.width=...")
    if site.kind in INNER and config.width is not None:
        known = None  # the loaded model is asked
    if known is not None and config.width not in (None, known):
        raise ConfigError(f"site.width={config.width}: {site.hook} has {known} numbers per position; leave it out")
    width = known if known is not None else config.width
    assert width is not None
    if width < 1:
        raise ConfigError(f"site.width={width} must be at least 1")
    return width
