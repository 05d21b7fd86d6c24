"""The typed configuration of one member: one frozen dataclass per config group.

Values and their defaults live in `configs/`, types and meaning here; `reading.py` makes the one of the other. Nothing
in these modules, or in anything they import, imports torch.
"""

from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from sae_sweep.architectures.base import SaeConfig

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
    """Of the model's weights and activations: float32, bfloat16, float16, float64, or auto, the checkpoint's own."""
    device: str
    """auto, cpu, cuda or cuda:N."""
    trust_remote_code: bool
    """Run code that the model's repository ships. Off unless asked for by name."""
    adapter: str | None = field(default=None, kw_only=True)
    """An adapter of the model, in peft's layout, that is merged into its weights: a local folder or a hub id."""
    device_map: dict[str, int | str] | str | None = field(default=None, kw_only=True, hash=False)
    """Where its modules are, if not on `device`: a word for accelerate, or a device by each module's name."""
    quantize: str | None = field(default=None, kw_only=True)
    """8bit or 4bit: how bitsandbytes keeps the matrices of its blocks; it computes in `dtype`."""
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
    """resid_pre, attn_z, attn_out, resid_mid, mlp_in, router, experts_out, mlp_post, mlp_out or resid_post."""
    layer: int | None
    """Block index from 0; null is the middle block (n_layers // 2)."""
    hook: str | None
    """A whole hook name (`blocks.3.hook_resid_post`) instead of kind and layer."""
    width: int | None
    """Numbers per position; needed for a hook that is of no known kind."""
    output: str | None
    """Reconstruct another place from this one (a transcoder): a kind in the same block, or a hook name."""
    across: list[int | str] | str | None
    """One SAE over several places (a crosscoder): layers of the kind, or hook names; all is every layer. With an output
    each layer's latents write to the outputs of that layer and of later ones (a cross-layer transcoder)."""
    models: list[str] | None = field(default=None, kw_only=True)
    """One SAE over two models that read the same tokens (a crosscoder): their folders or hub ids; the first is
    `model.path`, the second may have a revision (`ID@REVISION`)."""


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
    zipf: float | None = field(default=None, kw_only=True)
    """The i-th true latent is active i^-zipf times as often as the first, in place of `decay`, and `active` in all."""
    roots: int | None = field(default=None, kw_only=True)
    """True latents at the top of trees: all others are active only where their parent is. Null is no hierarchy."""
    children: int = field(default=4, kw_only=True)
    """Of each parent, in the order of frequency."""
    exclusive: bool = field(default=False, kw_only=True)
    """Whether of a parent's children no more than one is active."""
    rank: int | None = field(default=None, kw_only=True)
    """Factors that half of the copula's variance is made of; null is Sharkey's random covariance."""


LATER: dict[str, Any] = {
    **dict.fromkeys(("model.adapter", "model.device_map", "model.quantize")),
    "site.models": None,
    "data.weights": None,
    "data.filter": None,
    "data.packing": "concat",
    "data.attention": "row",
    "data.chat": False,
    "data.positions_of": "all",
    "data.max_bad_records": 0.001,
    "training.lr_schedule": None,
    "training.precision": "auto",
    "training.bias_lr": None,
    **{f"data.toy.{key.name}": key.default for key in fields(ToyConfig) if key.default is not MISSING},
}
"""Keys that came later, and what they are for a sweep that was written before: such a value changes no identity. Those
of `sae` are the fields of an architecture's config that have defaults (`config/saved.py`)."""


@dataclass(frozen=True)
class DataConfig:
    """The tokens the model reads, and how they become blocks of activations; or activations made without a model."""

    kind: str
    """demo, text, hub or tokens; activations and toy have no model."""
    toy: ToyConfig | None
    """What synthetic activations are like; null for all kinds but toy."""
    path: Any
    """text: files or globs; hub: dataset id; tokens: .npz/.npy/.bin/.arrow file, saved dataset folder or hub id."""
    weights: list[float] | None
    """Of a list of sources, their shares of the tokens; null reads them one after another."""
    name: str | None
    """hub: the dataset's configuration."""
    split: str
    """hub: which split to train on."""
    field: str
    """The document's field in jsonl or a hub dataset; for `tokens` the column or array of token ids."""
    filter: dict[str, Any] | None
    """The values that a record's fields must have to be read: {field: value or list of values}."""
    packing: str
    """`concat` lays documents end to end and cuts rows; `document` begins each in a row of its own, filled up."""
    attention: str
    """`row` lets attention look back over the whole row; `document` keeps it within each document of the row."""
    chat: bool
    """Whether records are conversations, which the tokenizer's chat template lays out."""
    positions_of: str
    """Of a conversation, whose tokens count: all, assistant or user."""
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
    max_norm_ratio: float | str | None
    """Leave out positions whose norm exceeds this multiple of the first block's median, or `auto` times that."""
    max_bad_records: float
    """The share of records that may be bad (broken JSON, no text): these are skipped. Empty ones are not bad."""
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
    """Share of the run, at its end, over which lr falls to 0."""
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
    lr_schedule: str | None = field(default=None, kw_only=True)
    """How lr falls over that share: linear (null too), cosine, or constant, which does not; over all of the run where
    it is given and the share is neither here nor in the recipe."""
    bias_lr: float | None = field(default=None, kw_only=True)
    """lr of biases and thresholds, as a multiple of that of the weights."""
    precision: str = field(default="auto", kw_only=True)
    """How a GPU multiplies: auto chooses latents by products of 16 bits and computes what may be chosen in float32,
    which is exact; bf16 reads rows of decoders and of errors in bfloat16 besides: the same codes, rounded gradients;
    fp32 computes all in float32, tf32 multiplies everything in TF32, which is not exact."""
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
    """Where curves go beside metrics.jsonl. What is null here is taken from wandb's environment variables."""

    mode: str | None
    """Of wandb: online or offline; none; or the name of another tracker (`sae_sweep/tracking/trackers/`)."""
    project: str | None
    entity: str | None
    group: str | None
    """Of the runs; null, and nothing in the environment, is the sweep's name."""
    tags: list[str] | None
    """Of every run, beside the architecture, the model and the hook."""
    notes: str | None
    """Of every run; null, and nothing in the environment, is what the member is, in a line."""
    artifacts: bool
    """Keep each finished member's folder as an artifact."""
    workspace: bool
    """Make the workspace that `sae-sweep dashboard` makes."""
    log_every: int | None
    """Steps between logged lines; null logs about 200 lines of a member, and more of long runs."""


@dataclass(frozen=True)
class LauncherConfig:
    """What a sweep may take of the machine it runs on."""

    memory_gb: float | None
    """Of a device, in 10^9 bytes; null is what it has free. On a CPU that is all the process may hold, its libraries
    too, and null is no limit: its memory is the host's."""
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
    dry_run: bool | str
    """true prints the plan, `members` with a line for each member, and both stop there."""
    model: ModelConfig
    site: SiteConfig
    data: DataConfig
    sae: SaeConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    tracking: TrackingConfig
    launcher: LauncherConfig
