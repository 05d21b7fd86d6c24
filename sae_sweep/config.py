"""The typed configuration of one member: one frozen dataclass per config group.

Values and their defaults live in `configs/`; types, meaning and validation live here, so a key that is
misspelt, of the wrong type or impossible is refused at this edge, before anything is loaded. Nothing in
this module, or in anything it imports, imports torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from types import NoneType
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.registry import ARCHITECTURES
from sae_sweep.errors import ConfigError
from sae_sweep.scalars import SCALARS

DEFAULT_L0 = 32.0
OBJECTIVE_KEYS = {
    "local": (),
    "e2e": ("kl_coefficient",),
    "e2e_downstream": ("kl_coefficient", "downstream_coefficient", "downstream_sites"),
    "kl_mse": ("kl_coefficient",),
}
"""The values of `training.objective`, each with the keys of `training` that only such as it read."""


@dataclass(frozen=True)
class ModelConfig:
    """The frozen language model."""

    name: str
    """What plans and messages call it; a hub id or folder is named by its path."""
    path: str | None
    """A local folder in Hugging Face layout, or a hub id; null is the small model that ships."""
    revision: str | None
    """Hub revision (branch, tag or commit)."""
    backend: str
    """`hf` (module hooks, sdpa attention) or `transformer_lens` (TransformerBridge; any hook name)."""
    dtype: str
    """Of the model's weights and activations: float32, bfloat16, float16 or float64."""
    device: str
    """auto, cpu, cuda or cuda:N."""
    trust_remote_code: bool
    """Run code that the model's repository ships. Off unless asked for by name."""
    d_model: int | None
    """This and the next five: facts for planning offline; null reads them from the folder's config.json."""
    n_layers: int | None
    n_heads: int | None
    d_head: int | None
    d_mlp: int | None
    vocab_size: int | None


@dataclass(frozen=True)
class SiteConfig:
    """A named place in the model, in TransformerLens's words."""

    kind: str | None
    """resid_pre, resid_mid, resid_post, mlp_in, mlp_post, mlp_out, attn_z or attn_out."""
    layer: int | None
    """Block index from 0; null is the middle block (n_layers // 2)."""
    hook: str | None
    """A whole hook name (`blocks.3.hook_resid_post`) instead of kind and layer."""
    width: int | None
    """Numbers per position; needed for a hook that is of no known kind."""
    output: str | None
    """Reconstruct another place from this one (a transcoder): a kind in the same block, or a hook name."""
    across: list[int | str] | None
    """One SAE over several places (a crosscoder): layers of the kind, or hook names."""


@dataclass(frozen=True)
class ToyConfig:
    """Synthetic activations whose true latents are known (`sae_sweep/data/toy.py`)."""

    dimensions: int
    """Numbers per activation."""
    latents: int
    """True latents: directions that activations are sums of."""
    active: float
    """True latents that are active in a row on average, before `decay` in the uncorrelated kind."""
    decay: float
    """The i-th true latent is active decay^i times as often as the first."""
    correlated: bool
    """Whether true latents are active together, as a Gaussian copula says, or each for itself."""
    noise: float
    """Standard deviation of what is added to each number."""


@dataclass(frozen=True)
class DataConfig:
    """The tokens the model reads, and how they become blocks of activations; or activations made without a model."""

    kind: str
    """demo, text, hub or tokens; toy has no tokens and no model."""
    toy: ToyConfig | None
    """What synthetic activations are like; null for all kinds but toy."""
    path: Any
    """text: files or globs; hub: dataset id; tokens: .npz/.npy/.arrow file, saved dataset folder or hub id."""
    name: str | None
    """hub: the dataset's configuration."""
    split: str
    """hub: which split to train on."""
    field: str
    """The document's field in jsonl or a hub dataset; for `tokens` the column or array of token ids."""
    heldout_path: Any
    """A source of its own for the held-out tokens; null reserves the first documents of the training source."""
    heldout_split: str | None
    """hub: a split of its own for the held-out tokens."""
    context: int
    """Tokens per row."""
    bos: str
    """`auto` begins each row with BOS where the tokenizer has one, `always` (an error without one), `never`."""
    seed: int
    """Of the order of rows and activations."""
    window_rows: int
    """Rows are permuted within windows of this many."""
    block_rows: int
    """Rows whose activations are harvested, permuted and consumed together."""
    rows_per_forward: int
    """Rows per forward pass of the model, in training and evaluation."""
    max_norm_ratio: float | None
    """Drop activations whose norm exceeds this multiple of the block's median norm."""
    cache: str | None
    """A folder that keeps blocks of activations for the next command that reads them; null harvests them anew."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a member is trained. Null takes the recipe's own value (`architectures/`)."""

    tokens: float
    """Training tokens (counted positions) the member consumes."""
    batch_size: int
    objective: str
    """local (squared error), e2e (KL), e2e_downstream (KL, and squared error at later sites), kl_mse (KL and squared
    error). All but local splice whole rows of data.context tokens, so batch_size is a multiple of that."""
    kl_coefficient: float
    """Of the KL; the squared error of kl_mse has 1."""
    downstream_coefficient: float
    """Of the squared error at later sites, averaged over sites, tokens and d."""
    downstream_sites: int | None
    """The next so many later sites; null is all."""
    lr: float | None
    lr_warmup_steps: int | None
    lr_decay_fraction: float | None
    """Share of the run, at its end, over which lr falls linearly to 0."""
    sparsity_warmup_steps: int | None
    beta1: float | None
    beta2: float | None
    eps: float | None
    clip: float | None
    """Largest gradient norm of a member; 0 is none."""
    checkpoint_minutes: float | None
    """How much work a kill may cost: time between checkpoints of a group; null takes none by the clock."""
    checkpoint_tokens: float | None
    """The same in training tokens of a member, on average."""
    milestones: list[int] | str | None
    """Training tokens after which each member is kept as it is then, and judged; `log:n` is n of them log-spaced."""

    @property
    def local(self) -> bool:
        """Whether a step needs no more than activations."""
        return self.objective == "local"

    @property
    def objective_keys(self) -> dict[str, Any]:
        """The objective and its own keys: those that it reads."""
        return {key: getattr(self, key) for key in ("objective", *OBJECTIVE_KEYS.get(self.objective, ()))}


@dataclass(frozen=True)
class EvaluationConfig:
    """How members are judged, on held-out tokens shared by the whole sweep."""

    tokens: float
    every: float | None
    """Also evaluate after the blocks in which so many more training tokens have passed; null is only at the end."""
    positions: str
    """`counted` splices and ablates the counted positions only; `all` splices every position."""
    later_sites: int | None
    """At so many later residual sites the activations that a reconstruction leads to are compared; null is all."""


@dataclass(frozen=True)
class TrackingConfig:
    """Where curves go beside metrics.jsonl."""

    mode: str
    """wandb mode: online, offline or none."""
    project: str
    entity: str | None
    log_every: int
    """Steps between logged lines."""


@dataclass(frozen=True)
class LauncherConfig:
    """What a sweep may take of the machine it runs on."""

    memory_gb: float | None
    """Of a device, in 10^9 bytes; null is what it has free, and no limit on a CPU, whose memory is the host's."""
    host_memory_gb: float | None
    """Of the host, for members that wait for their turn on the device; null is what it has."""
    devices: int
    """How many devices share one group: each reads a part of the rows and trains members of its own."""
    hosts: int
    """Machines that the devices are on, equally many on each."""
    device_flops: float | None
    """Floating-point operations that a device gets done in a second, for the hours of a plan; null gives none."""


@dataclass(frozen=True)
class MemberConfig:
    """One SAE of the sweep, fully resolved."""

    name: str
    """The sweep's name: results go to output_dir/name."""
    output_dir: str
    seed: int
    """Of initialisation and resampling."""
    init_from: str | None
    """The folder of a finished member whose weights this one begins from, instead of initialisation."""
    dry_run: bool
    model: ModelConfig
    site: SiteConfig
    data: DataConfig
    sae: SaeConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    tracking: TrackingConfig
    launcher: LauncherConfig


def member_config(entries: Mapping[str, Any] | DictConfig) -> MemberConfig:
    """The typed config of one composed config, or of a saved config.yaml.

    What has two spellings gets one: `sae.width` wins over `sae.expansion`, `site.hook` over `site.kind` (which toy data
    has not either), and a member that states neither its knob nor `sae.l0` has `sae.l0` = 32. Ranges are checked by
    the plan, not here.
    Raises ConfigError for an unknown key, a key left out, a wrong type, and for a knob together with `sae.l0`.
    """
    config: MemberConfig = _typed(MemberConfig, _plain(entries), "")
    kindless = config.site.hook is not None or config.data.toy is not None
    site = replace(config.site, kind=None) if kindless else config.site
    return replace(config, site=site, sae=_one_spelling(config.sae))


def config_entries(config: MemberConfig) -> dict[str, Any]:
    """The config as nested plain entries; `member_config` of them is the config again."""
    return asdict(config)


def flat_entries(entries: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested entries by their dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in entries.items():
        flat |= flat_entries(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def known_keys() -> list[str]:
    """Every dotted key that some member has."""
    keys = [key for key in _keys_of(MemberConfig, "") if not key.startswith("sae.")]
    return keys + sorted({key for architecture in ARCHITECTURES.values() for key in _keys_of(architecture, "sae.")})


def unknown_key(key: str, architecture: str | None) -> ConfigError:
    """The error for a key that no config has, or not the one of this architecture where it is known."""
    owners = [name for name, cls in ARCHITECTURES.items() if key in _keys_of(cls, "sae.")]
    if owners and architecture in ARCHITECTURES:
        own = ", ".join(field.name for field in fields(ARCHITECTURES[architecture]))
        return ConfigError(f"{key}: {architecture} has no such key (it is {', '.join(owners)}'s); its keys are {own}")
    if owners:
        return ConfigError(f"{key}: the chosen architecture has no such key; it is {', '.join(owners)}'s")
    known = known_keys()
    if key in known:
        group = key.rpartition(".")[0]
        return ConfigError(f"{key}: {group} is null here; {group.replace('.', '=')} gives it keys")
    near = get_close_matches(key, known, n=1)
    return ConfigError(
        f"{key}: no such key; " + (f"did you mean {near[0]}?" if near else "`sae-sweep --help` lists them")
    )


def shown(value: Any) -> str:
    """A value as one types it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return str(value)


def _plain(entries: Mapping[str, Any] | DictConfig) -> Mapping[str, Any]:
    if not isinstance(entries, DictConfig):
        return entries
    try:
        plain = OmegaConf.to_container(entries, resolve=True)
    except OmegaConfBaseException as error:
        key = error.full_key or "the config"
        raise ConfigError(f"{key}: cannot be resolved ({str(error).splitlines()[0]})") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _typed(cls: Any, entries: Any, prefix: str) -> Any:
    """An instance of dataclass `cls`; `prefix` is the dotted path to it, with its last dot."""
    if not isinstance(entries, Mapping):
        raise ConfigError(
            f"{prefix[:-1]}={shown(entries)} is a group of keys; give one, like {_keys_of(cls, prefix)[0]}"
        )
    if cls is SaeConfig:
        cls = _architecture(entries.get("architecture"))
    names, types = [field.name for field in fields(cls)], get_type_hints(cls)
    for name in entries:
        if name not in names:
            raise unknown_key(f"{prefix}{name}", entries.get("architecture"))
    for name in names:
        if name not in entries or entries[name] == "???":
            raise ConfigError(f"{prefix}{name} is not given; give {prefix}{name}=...")
    return cls(**{name: _value(types[name], entries[name], prefix + name) for name in names})


def _architecture(name: Any) -> type[SaeConfig]:
    if name not in ARCHITECTURES:
        raise ConfigError(f"sae.architecture={shown(name)} is not one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def _value(kind: Any, value: Any, key: str) -> Any:
    options = get_args(kind) or (kind,)
    if value is None and NoneType in options:
        return None
    wanted = _stated(kind)
    if is_dataclass(wanted):
        return _typed(wanted, value, f"{key}.")
    try:
        return SCALARS[wanted](value)
    except ValueError as error:
        or_null = " or null" if NoneType in options else ""
        raise ConfigError(f"{key}={shown(value)} is not {error}{or_null}") from None


def _stated(kind: Any) -> Any:
    """The type a value has when it is not null."""
    return next(option for option in get_args(kind) or (kind,) if option is not NoneType)


def _one_spelling(sae: SaeConfig) -> SaeConfig:
    knob = sae.knob()
    value: float | None = getattr(sae, knob)
    if value is not None and sae.l0 is not None:
        raise ConfigError(
            f"sae.{knob}={value:g} and sae.l0={sae.l0:g} both set the sparsity; give one and leave the other null"
        )
    if sae.width is None and sae.expansion is None:
        raise ConfigError("sae.width and sae.expansion are both null; give one")
    return replace(
        sae,
        l0=DEFAULT_L0 if value is None and sae.l0 is None else sae.l0,
        expansion=sae.expansion if sae.width is None else None,
    )


def _keys_of(cls: Any, prefix: str) -> list[str]:
    keys: list[str] = []
    for name, kind in get_type_hints(cls).items():
        group = _stated(kind)
        keys += _keys_of(group, f"{prefix}{name}.") if is_dataclass(group) else [prefix + name]
    return keys
