"""From the members' configs to the plan: groups that share one activation stream, and in them banks.

Pure apart from looking at the model folder's config.json and whether data files exist. No torch.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sae_sweep.config.reading import config_entries, flat_entries
from sae_sweep.config.schema import OBJECTIVE_KEYS, MemberConfig, ModelConfig, SiteConfig
from sae_sweep.config.values import shown
from sae_sweep.data.kinds import synthetic_kind
from sae_sweep.errors import ConfigError
from sae_sweep.model.facts import ModelFacts, model_facts, model_folder
from sae_sweep.model.sites import Site, later_sites, resolve_site, site_width, synthetic_site
from sae_sweep.plan.limits import check_config, check_width
from sae_sweep.plan.origin import check_origin, weights_hash
from sae_sweep.plan.schedules import Schedule, resolve_schedule

FACTS = ("d_model", "n_layers", "n_heads", "d_head", "d_mlp", "vocab_size")
RUNTIME_KEYS = ("name", "output_dir", "dry_run", "tracking", "launcher")
"""Top-level keys that do not change what a member is."""
RUNTIME_MODEL_KEYS = ("name", "device", *FACTS)
"""The same under `model`; the facts follow from the path."""
RUNTIME_DATA_KEYS = ("cache",)
"""The same under `data`."""
RUNTIME_TRAINING_KEYS = ("checkpoint_minutes", "checkpoint_tokens", "milestones")
"""The same under `training`."""
OBJECTIVE_ENTRIES = {"objective", *(key for keys in OBJECTIVE_KEYS.values() for key in keys)}
"""The same under `training`, where the objective does not read them."""
SHARED_KEYS = (
    *("name", "output_dir", "dry_run", "model.device", "data.cache"),
    *("tracking.mode", "tracking.project", "tracking.entity", "tracking.log_every"),
    *("launcher.memory_gb", "launcher.host_memory_gb"),
    *("launcher.devices", "launcher.hosts", "launcher.device_flops"),
    *("training.checkpoint_minutes", "training.checkpoint_tokens", "training.milestones"),
)
"""What the members of one command cannot differ in."""
PART_ELEMENTS = 2**21
"""Tokens x latents of a part of a bank that has several members: what a trainer computes together."""
STREAM_MODEL_KEYS = ("path", "revision", "backend", "dtype", "trust_remote_code")


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
    """Latents."""
    schedule: Schedule
    d_out: int
    """Numbers per position of what it reconstructs."""
    later: tuple[str, ...] = ()
    """Hooks after the site at which e2e_downstream compares."""
    watched: tuple[str, ...] = ()
    """Hooks after the site at which evaluation does (`evaluation.later_sites`)."""

    @property
    def widths(self) -> dict[str, int]:
        """Numbers per position by hook."""
        if self.site.beside:
            return dict.fromkeys(self.site.hooks, self.d // len(self.site.hooks))
        return {self.site.hook: self.d, self.site.written.hook: self.d_out}

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every trained tensor but the lookup."""
        shapes = self.config.sae.parameters(self.d, self.width)
        shapes |= {"W_dec": (self.width, self.d_out), "b_dec": (self.d_out,)}
        return shapes | ({"W_skip": (self.d_out, self.d)} if self.config.sae.skip else {})


@dataclass(frozen=True)
class Bank:
    """The members of one site, structure, objective and batch size: they step as one."""

    site: Site
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Group:
    """The members that share one activation stream."""

    key: str
    """Hash of what determines the stream: 12 hex digits."""
    banks: tuple[Bank, ...]
    hooks: tuple[str, ...]
    """Where activations are taken: the banks' hooks, each once."""

    @property
    def spliced(self) -> tuple[str, ...]:
        """What whole passes of the model are needed for: where they are spliced, and compared later on; each once."""
        asking = [member for member in self.members if not member.config.training.local]
        return tuple(dict.fromkeys(hook for member in asking for hook in (member.site.hook, *member.later)))

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(member for bank in self.banks for member in bank.members)


@dataclass(frozen=True)
class Plan:
    """Everything one command asked for."""

    groups: tuple[Group, ...]

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(member for group in self.groups for member in group.members)

    def labelled(self, labels: Mapping[str, str]) -> "Plan":
        """The same plan with other labels, by identity."""
        return _grouped(replace(member, label=labels[member.identity]) for member in self.members)

    def without(self, identities: Iterable[str]) -> "Plan":
        """The plan of the other members."""
        left_out = set(identities)
        return _grouped(member for member in self.members if member.identity not in left_out)

    def only(self, identities: Sequence[str]) -> "Plan":
        """The plan of these members, in this order."""
        members = {member.identity: member for member in self.members}
        return _grouped(members[identity] for identity in identities)


def parted(bank: Bank) -> list[Bank]:
    """The bank in parts of neighbouring members: each so many as step together, or one.

    It depends on the bank alone, so a bank that is trained in these parts is trained alike whatever it shares a
    device with.
    """
    most = PART_ELEMENTS // bank.members[0].config.training.batch_size
    parts: list[list[Member]] = []
    latents = 0
    for member in bank.members:
        if parts and latents + member.width <= most:
            parts[-1].append(member)
            latents += member.width
        else:
            parts.append([member])
            latents = member.width
    return [Bank(bank.site, tuple(part)) for part in parts]


def plan_sweep(configs: Sequence[MemberConfig]) -> Plan:
    """The plan of all members; configs of one identity become one member.

    Raises ConfigError for a value that cannot be trained, and for settings of the whole sweep that differ.
    """
    _check_shared(configs)
    members: dict[str, Member] = {}
    for config in configs:
        key = member_identity(config)
        if key not in members:
            members[key] = _member(config, key)
    labels = _new_labels(members.values())
    return _grouped(replace(member, label=labels[key]) for key, member in members.items())


def member_identity(config: MemberConfig) -> str:
    """Hash of the config without its runtime keys: 16 hex digits."""
    return digest(identity_entries(config))[:16]


def identity_entries(config: MemberConfig) -> dict[str, Any]:
    """The config's entries without its runtime keys: what two members are compared by."""
    entries = {name: value for name, value in config_entries(config).items() if name not in RUNTIME_KEYS}
    entries["model"] = {key: value for key, value in entries["model"].items() if key not in RUNTIME_MODEL_KEYS}
    entries["data"] = _data_entries(config)
    training = entries["training"]
    if entries.pop("init_from") is not None:  # which weights, not where they lie
        entries["init_from"] = weights_hash(str(config.init_from))
    left_out = {*RUNTIME_TRAINING_KEYS, *OBJECTIVE_ENTRIES}
    entries["training"] = {key: value for key, value in training.items() if key not in left_out}
    if not config.training.local:  # which is how members were before there was another objective
        entries["training"] |= config.training.objective_keys
    return entries


def stream_key(config: MemberConfig) -> str:
    """Hash of what determines the activation stream: 12 hex digits."""
    return digest(stream_entries(config))[:12]


def stream_entries(config: MemberConfig) -> dict[str, Any]:
    """What determines the activation stream."""
    model = {key: getattr(config.model, key) for key in STREAM_MODEL_KEYS}
    return {"model": model, "data": _data_entries(config), "reserved": config.evaluation.tokens}


def sparsity(config: MemberConfig) -> tuple[str, float]:
    """The key that sets the member's sparsity, l0 or its architecture's knob, and its value."""
    knob = "l0" if config.sae.l0 is not None else config.sae.knob()
    return knob, getattr(config.sae, knob)


def base_label(config: MemberConfig) -> str:
    """The member's name before any suffix, e.g. gated-l1_0.0006-x16, or topk-k_32-x8-e2e."""
    knob, value = sparsity(config)
    size = f"w{config.sae.width}" if config.sae.width is not None else f"x{_short(config.sae.expansion)}"
    form = "_transcoder" if config.site.output is not None else "_crosscoder" if config.site.across else ""
    objective = "" if config.training.local else f"-{config.training.objective}"
    origin = "" if config.init_from is None else "-finetuned"
    return f"{config.sae.method()}{form}-{knob}_{_short(value)}-{size}{objective}{origin}"


def suffixed(base: str, identity: str, taken: Iterable[str]) -> str:
    """The base label with as many hex digits of the identity as make it unique, at least 4."""
    names = set(taken)
    return next(
        label for digits in range(4, len(identity) + 1) if (label := f"{base}-{identity[:digits]}") not in names
    )


def _new_labels(members: Iterable[Member]) -> dict[str, str]:
    members = list(members)
    shared = Counter(base_label(member.config) for member in members)
    labels: dict[str, str] = {}
    for member in members:
        base = base_label(member.config)
        labels[member.identity] = base if shared[base] == 1 else suffixed(base, member.identity, labels.values())
    return labels


def _member(config: MemberConfig, identity: str) -> Member:
    check_config(config)
    made = synthetic_kind(config.data.kind)
    if made is not None:
        site, later, watched = synthetic_site(config.data.kind), tuple[str, ...](), tuple[str, ...]()
        d = d_out = made.dimensions(config.data)
        sites = 1
    else:
        config = replace(config, model=_own_facts(config.model))
        facts = model_facts(config.model)
        site = resolve_site(config.site, facts)
        d = _width_at(config.site, site, facts)
        d_out = (site_width(site.output, facts) if site.output else None) or d
        sites = 1 + len(site.beside)
        compared = config.training.objective == "e2e_downstream"
        later = later_sites(site, facts.n_layers, config.training.downstream_sites) if compared else ()
        if compared and not later:
            raise ConfigError(
                f"training.objective=e2e_downstream: the residual stream has no site after {site.hook}; take e2e, or a"
                " site in an earlier block"
            )
        last = max((site.written, *site.beside), key=lambda each: -1 if each.layer is None else each.layer)
        watched = later_sites(last, facts.n_layers, config.evaluation.later_sites)
    key = "expansion" if config.sae.width is None else "width"
    width = check_width(f"sae.{key}", getattr(config.sae, key), d)
    config.sae.check(d, width)
    if config.init_from is not None:
        wanted = {"sae": config.sae.method(), "d": d, "width": width, "site": site.hook, "output": None}
        check_origin(config.init_from, wanted)
    d, d_out = (sites * numbers for numbers in (d, d_out))
    return Member(config, identity, "", site, d, width, resolve_schedule(config, width), d_out, later, watched)


def _own_facts(model: ModelConfig) -> ModelConfig:
    """A local folder's config.json is right about it, whatever the yaml that named another model says."""
    if model_folder(model) is None:
        return model
    unstated = replace(model, d_model=None, n_layers=None, n_heads=None, d_head=None, d_mlp=None, vocab_size=None)
    try:
        model_facts(unstated)
    except ConfigError:
        return model  # a config.json that leaves sizes out: the stated ones are all there is
    return unstated


def _width_at(config: SiteConfig, site: Site, facts: ModelFacts) -> int:
    known = site_width(site, facts)
    if known is None and config.width is None:
        raise ConfigError(f"site.hook={site.hook} is of no known kind, so its width is needed too: add site.width=...")
    if known is not None and config.width not in (None, known):
        raise ConfigError(f"site.width={config.width}: {site.hook} has {known} numbers per position; leave it out")
    width = known if known is not None else config.width
    assert width is not None
    if width < 1:
        raise ConfigError(f"site.width={width} must be at least 1")
    return width


def _grouped(members: Iterable[Member]) -> Plan:
    groups: dict[str, dict[tuple[object, ...], list[Member]]] = {}
    for member in members:
        banks = groups.setdefault(stream_key(member.config), {})
        batch, objective = member.config.training.batch_size, member.config.training.objective_keys
        shared = (member.site, *member.config.sae.structure(), batch, *objective.values())
        banks.setdefault(shared, []).append(member)
    return Plan(tuple(_group(key, banks.values()) for key, banks in groups.items()))


def _group(key: str, banks: Iterable[list[Member]]) -> Group:
    made = tuple(Bank(members[0].site, tuple(members)) for members in banks)
    return Group(key, made, hooks_of(made))


def hooks_of(banks: Iterable[Bank]) -> tuple[str, ...]:
    """Where activations are taken for these banks, each hook once."""
    return tuple(dict.fromkeys(hook for bank in banks for hook in bank.site.hooks))


def _check_shared(configs: Sequence[MemberConfig]) -> None:
    for key in SHARED_KEYS:
        found = list(dict.fromkeys(shown(flat_entries(config_entries(config))[key]) for config in configs))
        if len(found) > 1:
            raise ConfigError(f"{key}={','.join(found)}: a whole sweep has one; give one value")


def _data_entries(config: MemberConfig) -> dict[str, Any]:
    return {key: value for key, value in asdict(config.data).items() if key not in RUNTIME_DATA_KEYS}


def digest(entries: Mapping[str, Any]) -> str:
    """Hash of entries whatever their order, in hex digits."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _short(value: float | None) -> str:
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
