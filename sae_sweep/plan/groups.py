"""From the members of one command to groups that share an activation stream, and in them banks. No torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any

from sae_sweep.config.schema import LauncherConfig, MemberConfig, TrackingConfig
from sae_sweep.config.values import shown
from sae_sweep.errors import ConfigError
from sae_sweep.model.sites import Site
from sae_sweep.plan.constants import CHUNK_ELEMENTS
from sae_sweep.plan.devices import on_gpu
from sae_sweep.plan.labels import new_labels
from sae_sweep.plan.members import (
    RUNTIME_DATA_KEYS,
    RUNTIME_TRAINING_KEYS,
    Member,
    data_entries,
    digest,
    member_identity,
    resolve_member,
    stated,
)

SHARED_KEYS = (
    *("name", "output_dir", "dry_run", "model.device", "model.device_map"),
    *(f"data.{key}" for key in RUNTIME_DATA_KEYS),
    *(f"tracking.{field.name}" for field in fields(TrackingConfig)),
    *(f"launcher.{field.name}" for field in fields(LauncherConfig)),
    *(f"training.{key}" for key in RUNTIME_TRAINING_KEYS),
)
"""What the members of one command cannot differ in."""
STREAM_MODEL_KEYS = ("path", "revision", "backend", "dtype", "trust_remote_code")
LATER_MODEL_KEYS = ("adapter", "quantize")
"""The same of a later version, which change nothing where they are null."""


@dataclass(frozen=True)
class BankPlan:
    """The members of one site, structure, objective and batch size, which step as one; or some neighbours of them."""

    site: Site
    members: tuple[Member, ...]

    def chunks(self) -> list["BankPlan"]:
        """The members in chunks of neighbours: each so many as may step together, or one.

        They depend on the bank alone, so a bank that is trained chunk by chunk is trained alike whatever it shares a
        device with.
        """
        config = self.members[0].config
        most = CHUNK_ELEMENTS["cuda" if on_gpu(config) else "cpu"] // config.training.batch_size
        most = most if self.site.layers == 1 else 0  # whose latents do not all read the same
        chunks: list[list[Member]] = []
        latents = 0
        for member in self.members:
            if chunks and latents + member.width <= most:
                chunks[-1].append(member)
                latents += member.width
            else:
                chunks.append([member])
                latents = member.width
        return [BankPlan(self.site, tuple(chunk)) for chunk in chunks]


@dataclass(frozen=True)
class Group:
    """The members that share one activation stream."""

    key: str
    """Hash of what determines the stream: 12 hex digits."""
    banks: tuple[BankPlan, ...]
    hooks: tuple[str, ...]
    """Where activations are taken: the banks' hooks, each once."""

    @property
    def spliced(self) -> tuple[str, ...]:
        """What whole passes of the model are needed for: where they are spliced, and compared later on; each once."""
        asking = [member for member in self.members if not member.config.training.local]
        return tuple(dict.fromkeys(hook for member in asking for hook in (member.site.hook, *member.later)))

    @property
    def members(self) -> tuple[Member, ...]:
        """The members of all its banks, in their order."""
        return tuple(member for bank in self.banks for member in bank.members)


@dataclass(frozen=True)
class Plan:
    """Everything one command asked for."""

    groups: tuple[Group, ...]

    @property
    def members(self) -> tuple[Member, ...]:
        """The members of all its groups, in their order."""
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


def plan_sweep(configs: Sequence[MemberConfig]) -> Plan:
    """The plan of all members; configs of one identity become one member.

    Raises ConfigError for a value that cannot be trained, and for settings of the whole sweep that differ.
    """
    _check_shared(configs)
    members: dict[str, Member] = {}
    for config in map(stated, configs):
        key = member_identity(config)
        if key not in members:
            members[key] = resolve_member(config, key)
    labels = new_labels(members.values())
    return _grouped(replace(member, label=labels[key]) for key, member in members.items())


def stream_key(config: MemberConfig) -> str:
    """Hash of what determines the activation stream: 12 hex digits."""
    return digest(stream_entries(config))[:12]


def stream_entries(config: MemberConfig) -> dict[str, Any]:
    """What determines the activation stream."""
    model: dict[str, Any] = {key: getattr(config.model, key) for key in STREAM_MODEL_KEYS}
    model |= {key: value for key in LATER_MODEL_KEYS if (value := getattr(config.model, key)) is not None}
    if config.site.models is not None:
        model["second"] = config.site.models[1]
    return {"model": model, "data": data_entries(config), "reserved": config.evaluation.tokens}


def _grouped(members: Iterable[Member]) -> Plan:
    groups: dict[str, dict[tuple[object, ...], list[Member]]] = {}
    for member in members:
        banks = groups.setdefault(stream_key(member.config), {})
        batch, objective = member.config.training.batch_size, member.config.training.objective_keys
        precision = member.config.training.precision
        shared = (member.site, *member.config.sae.structure(), batch, precision, *objective.values())
        banks.setdefault(shared, []).append(member)
    return Plan(tuple(_group(key, banks.values()) for key, banks in groups.items()))


def _group(key: str, banks: Iterable[list[Member]]) -> Group:
    made = tuple(BankPlan(members[0].site, tuple(members)) for members in banks)
    return Group(key, made, hooks_of(made))


def hooks_of(banks: Iterable[BankPlan]) -> tuple[str, ...]:
    """Where activations are taken for these banks, each hook once."""
    return tuple(dict.fromkeys(hook for bank in banks for hook in bank.site.hooks))


def _check_shared(configs: Sequence[MemberConfig]) -> None:
    for key in SHARED_KEYS:
        value_of = attrgetter(key)
        found = list(dict.fromkeys(shown(value_of(config)) for config in configs))
        if len(found) > 1:
            raise ConfigError(f"{key}={','.join(found)}: a whole sweep has one; give one value")
