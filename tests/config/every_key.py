"""The table of every config key: what it changes, and where that shows. `test_every_key.py` walks it.

A row is a run and the same run with the key changed. Rows of `sae` keys are shown in every architecture that reads
them, further values of a key in one. `{name}` stands for a file or folder that the tests make.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Effect = Literal[
    *("parameters", "metrics", "curves", "passes", "plan", "refused", "place", "tracking", "card", "later", "kept"),
    *("checkpoints", "turns", "hours", "bank", "elsewhere"),
]
"""What a key changes:

parameters  what training gives, weights and all that is measured on them
metrics     what is measured on the same weights
curves      how often metrics.jsonl is written
passes      how many forward passes the model makes, for the same activations
plan        sizes that planning needs where it cannot read them; null is refused
refused     whether a run is accepted at all
place       where results go, and whether there are any; where activations are kept
tracking    what wandb is told
kept        what is kept with wandb's runs, or made of them
card        what the saved SAE says of its model
later       what is measured beside the rest, on the same weights
turns       which members are on the device together, and how often the model's pass is made
hours       how long a plan says that it takes
bank        which members step together
checkpoints how often there is one to go on from
elsewhere   where the model is, for the same activations
"""


@dataclass(frozen=True)
class Row:
    """A key with the command lines that show it."""

    key: str
    effect: Effect
    change: str
    """The override of the key, and of others that have to follow it."""
    base: str = ""
    """Overrides of both runs."""

    @property
    def option(self) -> str:
        """The file of configs/sae that it is shown with."""
        return next((word[4:] for word in self.base.split() if word.startswith("sae=")), "standard")

    def overrides(self, places: Mapping[str, Path | str]) -> tuple[list[str], list[str]]:
        """Of its two runs."""
        sae = "" if "sae=" in self.base else OPTIONS["standard"]
        base = [*small(places), *f"{sae} {self.base}".format(**places).split()]
        return base, [*base, *self.change.format(**places).split()]


OPTIONS = {
    "standard": "sae=standard sae.l1=0.3",
    "standard_april": "sae=standard_april sae.l1=0.3",
    "p_anneal": "sae=p_anneal sae.l1=0.3",
    "gated": "sae=gated sae.l1=0.3",
    "gated_decoder_norm": "sae=gated_decoder_norm sae.l1=0.3",
    "jumprelu": "sae=jumprelu sae.l0_coefficient=0.01 sae.threshold_init=0.1 sae.bandwidth=0.1 sae.input_scale=unit",
    "jumprelu_anthropic": "sae=jumprelu_anthropic sae.l0_coefficient=0.3",
    "topk": "sae=topk sae.k=3",
    "batchtopk": "sae=batchtopk sae.k=3",
    "matryoshka": "sae=matryoshka sae.k=3 sae.groups=3",
    "hierarchical_topk": "sae=hierarchical_topk sae.k=3",
    "ortsae": "sae=ortsae sae.k=3 sae.orthogonality=1",
    "temporal": "sae=temporal sae.k=3 sae.contrast=1",
    "jumprelu_gemma_scope_2": "sae=jumprelu_gemma_scope_2 sae.l0=3 sae.groups=3 sae.threshold_init=0.1"
    " sae.bandwidth=0.1 sae.input_scale=unit",
}
CONTROLS = {name: f"sae={name} sae.k=3" for name in ("frozen_decoder", "frozen_encoder", "random", "pca", "kmeans")}
OPTIONS |= {f"{option}_paper": line.replace(f"sae={option}", f"sae={option}_paper") for option, line in OPTIONS.items()}
OPTIONS |= CONTROLS
"""Every file of configs/sae, with a sparsity of its own."""

L1 = ("standard", "standard_april", "p_anneal", "gated", "gated_decoder_norm")
PENALTY = (*L1, "jumprelu", "jumprelu_anthropic")
TOPK = ("topk", "batchtopk", "matryoshka")
ARCHITECTURES = ("standard", "p_anneal", "gated", "jumprelu", *TOPK)

MANY_DEAD = "training.lr=0.05 training.lr_warmup_steps=0"
"""Lets latents die within a few steps."""


def _in(options: tuple[str, ...], key: str, value: str, base: str = "") -> list[Row]:
    """A `sae` key in several architectures, which changes what they learn."""
    return [Row(f"sae.{key}", "parameters", f"sae.{key}={value}", f"{OPTIONS[option]} {base}") for option in options]


def _other_maths(base: str, change: str, knob: str) -> Row:
    """Two architectures that begin alike."""
    alike = "sae.b_dec_init=mean sae.encoder_init=transpose"
    return Row("sae.architecture", "parameters", f"sae={change} {knob} {alike}", f"sae={base} {knob} {alike}")


SAE = [
    _other_maths("standard", "p_anneal", "sae.l1=0.3"),
    _other_maths("gated", "standard", "sae.l1=0.3"),
    _other_maths("topk", "batchtopk", "sae.k=3"),
    _other_maths("topk", "matryoshka", "sae.k=3 sae.width=32"),
    *_in(ARCHITECTURES, "expansion", "0.5", "sae.width=null sae.expansion=0.75"),
    *_in(ARCHITECTURES, "width", "20"),
    *_in(tuple(option for option in OPTIONS if option.endswith("_paper")), "recipe", "tuned"),
    *_in(("gated", "topk"), "recipe", "tuned"),
    *[
        Row("sae.l0", "parameters", "sae.l0=8", f"sae={option} sae.l0=3")
        for option in ("standard", "standard_april", "p_anneal", "gated", "gated_decoder_norm", "topk", "batchtopk")
    ],
    Row("sae.l0", "parameters", "sae.l0=8", "sae=matryoshka sae.l0=3 sae.groups=3"),
    Row("sae.l0", "parameters", "sae.l0=8", "sae=jumprelu sae.l0=3 sae.threshold_init=0.1 sae.bandwidth=0.1"),
    Row(
        "sae.l0",
        "parameters",
        "sae.l0=8",
        "sae=jumprelu sae.l0=3 sae.threshold_init=0.1 sae.bandwidth=0.1 sae.penalty=l0",
    ),
    Row("sae.l0", "parameters", "sae.l0=8", "sae=jumprelu_anthropic sae.l0=3"),
    *_in(ARCHITECTURES, "input_scale", "unit", "sae.input_scale=none"),
    *_in(("standard",), "input_scale", "sqrt_d", "sae.input_scale=none"),
    *_in(("gated",), "input_scale", "whiten", "sae.input_scale=none"),
    *_in(ARCHITECTURES, "centre", "true", "sae.b_dec_init=zero"),
    *_in(ARCHITECTURES, "decoder_init", "data", "sae.decoder_init=random"),
    *_in(("topk",), "decoder_init", "pca", "sae.decoder_init=random"),
    *_in(("topk",), "decoder_init", "kmeans", "sae.decoder_init=random"),
    *_in(("frozen_decoder",), "decoder_init", "covariance"),
    *_in(ARCHITECTURES, "trained", "none"),
    *_in(("topk",), "trained", "encoder"),
    *_in(("gated",), "trained", "decoder"),
    *_in(("frozen_decoder",), "trained", "encoder", "sae.trained=all"),
    *_in(("frozen_encoder",), "trained", "decoder", "sae.trained=all"),
    *_in(("random", "pca", "kmeans"), "trained", "none", "sae.trained=all"),
    *_in(ARCHITECTURES, "encoder_init", "random", "sae.encoder_init=transpose"),
    *_in(("standard",), "encoder_init", "divided_transpose", "sae.encoder_init=transpose sae.width=48"),
    *_in(("gated",), "encoder_init", "scaled_transpose", "sae.encoder_init=transpose sae.width=80"),
    *_in(("topk",), "encoder_init", "matched_transpose", "sae.encoder_init=transpose"),
    *_in(ARCHITECTURES, "b_dec_init", "mean", "sae.b_dec_init=zero"),
    *_in(("standard",), "b_dec_init", "geometric_median", "sae.b_dec_init=mean"),
    *_in(ARCHITECTURES, "lookup", "learned", "sae.lookup=none"),
    *_in(("gated",), "lookup", "frozen", "sae.lookup=learned"),
    *_in(ARCHITECTURES, "lookup_scale", "0.9", "sae.lookup=learned"),
    *_in(("topk",), "lookup_scale", "0.9", "sae.lookup=frozen"),
    *_in(ARCHITECTURES, "lookup_lr", "0.1", "sae.lookup=learned"),
    *_in(ARCHITECTURES, "lookup_subtract", "true", "sae.lookup=learned"),
    *_in(ARCHITECTURES, "skip", "true", "site=mlp training.lr=0.03"),  # a skip learns slowly
    *_in(L1, "l1", "0.6"),
    *_in(PENALTY, "coefficient_unit", "mean_d"),
    *_in(("standard",), "coefficient_unit", "mean_d_norm"),
    *_in(("gated", "jumprelu"), "coefficient_unit", "mean_square", "sae.coefficient_unit=mean_d"),
    *_in(("jumprelu",), "coefficient_unit", "variance", "sae.coefficient_unit=mean_square sae.l0_coefficient=0.03"),
    *_in(L1, "resample", "true", f"{MANY_DEAD} sae.resample=false sae.b_dec_init=zero sae.l1=30"),
    *_in(
        PENALTY[len(L1) :],
        "resample",
        "true",
        f"{MANY_DEAD} sae.resample=false sae.l0_coefficient=30 sae.threshold_init=1",
    ),
    Row("sae.variant", "parameters", "sae.variant=april", OPTIONS["standard"]),
    Row("sae.variant", "parameters", "sae.variant=decoder_norm", OPTIONS["gated"]),
    Row("sae.variant", "parameters", "sae.variant=anthropic", OPTIONS["jumprelu"]),
    *_in(("p_anneal",), "p_end", "0.5"),
    *_in(("p_anneal",), "anneal_after_steps", "0", "sae.anneal_after_steps=1"),
    *_in(("jumprelu", "jumprelu_anthropic"), "l0_coefficient", "0.6"),
    *_in(("jumprelu",), "free_decoder", "true"),
    *_in(("jumprelu",), "penalty", "frequency", "sae.penalty=l0"),
    *_in(("jumprelu", "jumprelu_anthropic"), "threshold_init", "0.05"),
    *_in(("jumprelu", "jumprelu_anthropic"), "bandwidth", "0.5"),
    *_in(("jumprelu",), "frequency_scale", "1", "sae.penalty=frequency"),
    *_in(("jumprelu_anthropic",), "tanh_scale", "1"),
    *_in(("jumprelu_anthropic",), "preactivation_coefficient", "0.1"),
    *_in(TOPK, "k", "5"),
    *_in(TOPK, "auxk", "4", f"{MANY_DEAD} sae.dead_after_tokens=64 sae.auxk=1 sae.encoder_init=transpose"),
    *_in(TOPK, "auxk_coefficient", "1", f"{MANY_DEAD} sae.dead_after_tokens=64"),
    *_in(TOPK, "dead_after_tokens", "256", f"{MANY_DEAD} sae.dead_after_tokens=64 sae.auxk_coefficient=1"),
    *_in(("matryoshka",), "groups", "4"),
    *_in(("matryoshka",), "prefixes", "sampled"),
    *_in(("topk", "standard", "jumprelu"), "groups", "3"),
    *_in(("topk", "standard", "jumprelu"), "prefixes", "sampled", "sae.groups=3"),
    *_in(("hierarchical_topk",), "budgets", "all", "sae.k=6"),
    *_in(("ortsae",), "orthogonality", "5"),
    *_in(("temporal",), "high_share", "0.5"),
    *_in(("temporal",), "contrast", "5"),
    *_in(("ortsae",), "orthogonality_chunk", "4", "sae.orthogonality=5"),
    *_in(("jumprelu_gemma_scope_2",), "frequency_scale", "0.01", "sae.threshold_init=0.3"),
]

DOWNSTREAM = "training.objective=e2e_downstream"

TRAINING = [
    Row("seed", "parameters", "seed=1"),
    Row("init_from", "parameters", "init_from={finished}"),
    Row("training.tokens", "parameters", "training.tokens=2000"),
    Row("training.batch_size", "parameters", "training.batch_size=96"),
    Row("training.objective", "parameters", "training.objective=e2e", "training.objective=kl_mse"),
    Row("training.kl_coefficient", "parameters", "training.kl_coefficient=3", "training.objective=e2e"),
    Row("training.downstream_coefficient", "parameters", "training.downstream_coefficient=9", DOWNSTREAM),
    Row("training.downstream_sites", "parameters", "training.downstream_sites=1", DOWNSTREAM),
    Row("training.lr", "parameters", "training.lr=2e-3"),
    Row("training.bias_lr", "parameters", "training.bias_lr=3"),
    Row("training.lr_warmup_steps", "parameters", "training.lr_warmup_steps=9"),
    Row("training.lr_decay_fraction", "parameters", "training.lr_decay_fraction=0.5"),
    Row("training.lr_schedule", "parameters", "training.lr_schedule=cosine", "training.lr_decay_fraction=0.5"),
    Row("training.sparsity_warmup_steps", "parameters", "training.sparsity_warmup_steps=9"),
    Row("training.beta1", "parameters", "training.beta1=0.5"),
    Row("training.beta2", "parameters", "training.beta2=0.9"),
    Row("training.eps", "parameters", "training.eps=0.1"),
    Row("training.clip", "parameters", "training.clip=0.1 training.eps=1", "training.eps=1"),
]

TOY = (
    "data=toy data.path=null model.path=null site.layer=null"
    " data.toy.dimensions=24 data.toy.latents=30 data.toy.active=3"
)
HOOK = "site=resid_post site.hook=blocks.1.ln1.hook_normalized site.layer=null"

STREAM = [
    Row("model.path", "parameters", "model.path={gpt2}"),
    Row("model.adapter", "parameters", "model.adapter={adapter}"),
    Row("model.quantize", "parameters", "model.quantize=8bit", "model.quantize=4bit"),
    Row("model.revision", "parameters", "model.revision=other", "model.path=some/model model.revision=main {sizes}"),
    Row("model.dtype", "parameters", "model.dtype=bfloat16"),
    Row("site.kind", "parameters", "site=mlp_out"),
    Row("site.layer", "parameters", "site.layer=2"),
    Row("site.across", "parameters", "site.across=[0,1,2]", "site.layer=null"),
    Row("site.models", "parameters", "site.models=[{llama},{tuned}]", "site.models=[{llama},{llama}]"),
    Row("site.output", "parameters", "site.output=mlp_out", "site=mlp_in"),
    Row("site.hook", "parameters", "site.hook=blocks.0.hook_resid_post", "site.layer=null"),
    Row("data.kind", "parameters", "data=demo data.path=null"),
    Row("data.path", "parameters", "data.path={other_text}"),
    Row(
        "data.weights",
        "parameters",
        "data.weights=[0.1,0.9]",
        "data.path=[{text},{other_text}] data.weights=[0.9,0.1]",
    ),
    Row("data.name", "parameters", "data.name=second", "data=hub data.path={dataset} data.name=first"),
    Row("data.split", "parameters", "data.split=test", "data=hub data.path={dataset} data.name=first"),
    Row("data.field", "parameters", "data.field=body", "data.path={jsonl}"),
    Row("data.filter", "parameters", "data.filter={{kind:b}}", "data.path={jsonl}"),
    Row("data.packing", "parameters", "data.packing=document"),
    Row("data.attention", "parameters", "data.attention=document", "data.path={short}"),
    Row("data.chat", "parameters", "data.chat=true", "model.path={chatty} data.path={chats} data.field=said"),
    Row(
        "data.positions_of",
        "parameters",
        "data.positions_of=user",
        "data.chat=true model.path={chatty} data.path={chats}",
    ),
    Row("data.heldout_path", "metrics", "data.heldout_path={other_text}", "data.heldout_path={third_text}"),
    Row("data.heldout_split", "metrics", "data.heldout_split=b", "data=hub data.path={saved} data.heldout_split=a"),
    Row("data.context", "parameters", "data.context=12"),
    Row("data.bos", "parameters", "data.bos=never"),
    Row("data.seed", "parameters", "data.seed=1"),
    Row("data.window_rows", "parameters", "data.window_rows=40"),
    Row("data.block_rows", "parameters", "data.block_rows=20"),
    Row("data.rows_per_forward", "passes", "data.rows_per_forward=8"),
    Row("data.max_norm_ratio", "parameters", "data.max_norm_ratio=1.05"),
    Row("data.toy.dimensions", "parameters", "data.toy.dimensions=20", TOY),
    Row("data.toy.latents", "parameters", "data.toy.latents=40", TOY),
    Row("data.toy.active", "parameters", "data.toy.active=5", TOY),
    Row("data.toy.decay", "parameters", "data.toy.decay=0.9", TOY),
    Row("data.toy.correlated", "parameters", "data.toy.correlated=false", TOY),
    Row("data.toy.noise", "parameters", "data.toy.noise=0.1", TOY),
    Row("data.toy.zipf", "parameters", "data.toy.zipf=1", TOY),
    Row("data.toy.roots", "parameters", "data.toy.roots=3", TOY),
    Row("data.toy.children", "parameters", "data.toy.children=2", f"{TOY} data.toy.roots=3"),
    Row("data.toy.exclusive", "parameters", "data.toy.exclusive=true", f"{TOY} data.toy.roots=3"),
    Row("data.toy.rank", "parameters", "data.toy.rank=2", TOY),
    Row("evaluation.tokens", "metrics", "evaluation.tokens=320", "data.heldout_path={other_text}"),
    Row("evaluation.positions", "metrics", "evaluation.positions=all"),
    Row("evaluation.later_sites", "later", "evaluation.later_sites=1"),
    Row("evaluation.every", "curves", "evaluation.every=500"),
]

WIDE = "sae.width=200000"
TIGHT = "launcher.memory_gb=1.45 launcher.host_memory_gb=0.4 launcher.devices=2"

REST = [
    Row("model.backend", "refused", "model.backend=transformer_lens", f"{HOOK} site.width=32"),
    Row("model.device_map", "elsewhere", "model.device_map={device_map}"),
    Row("model.device", "refused", "model.device=cpu", "model.device=cuda:999"),
    Row("model.trust_remote_code", "refused", "model.trust_remote_code=true", "model.path={custom}"),
    Row("data.max_bad_records", "refused", "data.max_bad_records=0.1", "data=text data.path={damaged}"),
    Row("site.width", "refused", "site.width=32", f"{HOOK} model.backend=transformer_lens"),
    *[
        Row(f"model.{size}", "plan", f"model.{size}={value}", f"model.path=some/model {{sizes}} site={site}")
        for size, value, site in (
            ("d_model", 64, "resid_post site.layer=1"),
            ("n_layers", 9, "resid_post site.layer=null"),
            ("n_heads", 7, "attn_z"),
            ("d_head", 5, "attn_z"),
            ("d_mlp", 99, "mlp_post"),
            ("vocab_size", 900, "resid_post"),
        )
    ],
    Row("model.name", "card", "model.name=mine", "model.path=null"),
    Row("name", "place", "name=other"),
    Row("output_dir", "place", "output_dir={elsewhere}"),
    Row("dry_run", "place", "dry_run=true", "name=dry"),
    Row("data.cache", "place", "data.cache={outputs}/kept", "name=cached"),
    Row("tracking.mode", "tracking", "tracking.mode=offline"),
    Row("tracking.project", "tracking", "tracking.project=mine", "tracking.mode=offline"),
    Row("tracking.entity", "tracking", "tracking.entity=us", "tracking.mode=offline"),
    Row("tracking.group", "tracking", "tracking.group=mine", "tracking.mode=offline"),
    Row("tracking.tags", "tracking", "tracking.tags=[a,b]", "tracking.mode=offline"),
    Row("tracking.notes", "tracking", "tracking.notes=mine", "tracking.mode=offline"),
    Row("tracking.artifacts", "kept", "tracking.artifacts=true", "tracking.mode=offline"),
    Row("tracking.workspace", "kept", "tracking.workspace=true", "tracking.mode=offline"),
    Row("tracking.log_every", "curves", "tracking.log_every=4"),
    Row("launcher.memory_gb", "turns", "launcher.memory_gb=1.45", WIDE),
    Row("launcher.devices", "turns", "launcher.devices=2", f"{WIDE} launcher.memory_gb=1.45"),
    Row("launcher.hosts", "turns", "launcher.hosts=2", f"{WIDE} {TIGHT}"),
    Row("launcher.device_flops", "hours", "launcher.device_flops=1e12"),
    Row("launcher.host_memory_gb", "turns", "launcher.host_memory_gb=0.2", f"{WIDE} launcher.memory_gb=1.45"),
    Row("training.checkpoint_minutes", "checkpoints", "training.checkpoint_minutes=0"),
    Row("training.checkpoint_tokens", "checkpoints", "training.checkpoint_tokens=512"),
    Row("training.precision", "bank", "training.precision=fp32"),
    Row("training.milestones", "place", "training.milestones=[200] name=milestones"),
]

TABLE = [*SAE, *TRAINING, *STREAM, *REST]

RUNTIME = (
    *("name", "output_dir", "dry_run", "tracking.", "launcher.", "model.name", "model.device", "model.device_map"),
    *("data.cache", "data.max_bad_records"),
    *("training.checkpoint_minutes", "training.checkpoint_tokens", "training.milestones"),
)
"""Keys, and beginnings of keys, that are no part of what a member is; the sizes of a model are none either."""
OF_THE_STREAM = ("model.", "site.models", "data.", "evaluation.tokens")
"""The same of the keys, among the others, that part the members of a sweep into streams of activations."""


def small(places: Mapping[str, Path | str]) -> list[str]:
    """Overrides of every run: rows of 16 tokens, blocks of 32 rows, 24 steps."""
    return [
        *("name=keys", f"output_dir={places['outputs']}", "model=local", f"model.path={places['llama']}"),
        *("model.device=cpu", "data=text", f"data.path={places['text']}", "data.context=16", "data.block_rows=32"),
        *("data.rows_per_forward=16", "site.layer=1", "sae.width=24"),
        *("training.batch_size=64", "training.tokens=1536", "training.lr=1e-2", "evaluation.tokens=160"),
        *("tracking=none", "tracking.log_every=8"),
    ]
