"""Which values can be trained: the ranges of every key, checked before anything is loaded or written."""

import re
from collections.abc import Sequence
from math import inf

from sae_sweep.config.schema import OBJECTIVE_KEYS, MemberConfig
from sae_sweep.config.values import shown
from sae_sweep.data.checks import check_data
from sae_sweep.data.kinds import modelless_kind
from sae_sweep.errors import ConfigError
from sae_sweep.model.facts import unknown_device
from sae_sweep.plan.model_limits import check_large, check_ranks

BACKENDS = ("hf", "transformer_lens")
DTYPES = ("float32", "bfloat16", "float16", "float64")
AUTO = "auto"
"""As `model.dtype`: the checkpoint's own."""
POSITIONS = ("counted", "all")
LR_SCHEDULES = ("linear", "cosine", "constant")
PRECISIONS = ("auto", "fp32", "tf32", "bf16")
MOST_DEVICES = 1024
"""That share a group: each of them reads rows of every block."""
NAME_BYTES = 200
"""A file system's 255, less what a temporary name adds."""

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def check_config(config: MemberConfig) -> None:
    """Raises ConfigError on the first value that cannot be; what depends on the width is `config.sae.check`'s."""
    _check_name(config.name)
    _within("seed", config.seed, 0, 2**31, "from 0 to below 2^31")
    _check_model(config)
    check_large(config)
    check_data(config.data)
    _check_synthetic(config)
    _check_models(config)
    _check_map(config)
    _check_whitening(config)
    _check_pairs(config)
    _check_training(config)
    _check_precision(config)
    _check_objective(config)
    _check_evaluation(config)
    _at_least("tracking.log_every", config.tracking.log_every, 1)
    _check_launcher(config)


def check_width(key: str, value: float, d: int) -> int:
    """Latents from `value`, which is an expansion of d or a width, as `key` says."""
    width = round(value * d) if key == "sae.expansion" else round(value)
    if width < 1:
        raise ConfigError(f"{key}={shown(value)} gives no latent (d = {d}); it must give at least 1")
    return width


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or re.search(r"[/\\\x00-\x1f\x7f]", name) or len(name.encode()) > NAME_BYTES:
        raise ConfigError(
            f"name={name[:40]!r} must be a plain folder name: no slash, no control character, no dot in front, not"
            f" empty, at most {NAME_BYTES} bytes"
        )


def _check_model(config: MemberConfig) -> None:
    _one_of("model.backend", config.model.backend, BACKENDS)
    _one_of("model.dtype", config.model.dtype, (*DTYPES, AUTO))
    if not _DEVICE.fullmatch(config.model.device):
        raise unknown_device(config.model.device)
    if config.data.attention == "document" and config.model.backend != "hf":
        raise ConfigError(f"data.attention=document is model.backend=hf's, and {config.model.backend} is asked for")


def _check_synthetic(config: MemberConfig) -> None:
    """Synthetic data has neither a model nor sites nor tokens."""
    kind = config.data.kind
    made = modelless_kind(kind)
    if made is None:
        return
    sites = ("layer", "hook", "width", "output", "across", "models")
    unread = {
        "site": sites,
        "model": ("path", "revision", "adapter", "device_map", "quantize"),
        "data": () if made.STORED else ("max_norm_ratio",),
    }
    for group, keys in unread.items():
        for key in keys:
            value = getattr(getattr(config, group), key)
            if value is not None:
                raise ConfigError(f"{group}.{key}={shown(value)} is not read with data.kind={kind}, which has no model")
    if config.sae.lookup != "none":
        raise ConfigError(f"sae.lookup={config.sae.lookup} looks tokens up, and data.kind={kind} has none; take none")


def _check_models(config: MemberConfig) -> None:
    """What members of two models go with."""
    models = config.site.models
    if models is None:
        return
    key = f"site.models={shown(models)}"
    if len(models) != 2 or not all(models):
        raise ConfigError(f"{key}: one SAE is over two models, the one that is read first and another; give [A,B]")
    if config.model.path != models[0]:
        raise ConfigError(f"{key}: its first is model.path={config.model.path}; give that first, or leave that out")
    if config.model.adapter is not None:
        raise ConfigError(
            f"model.adapter={config.model.adapter} with {key}: merge it into a model, and give that one's folder"
        )
    if config.site.output is not None:
        raise ConfigError(f"site.output={config.site.output} is a transcoder's; leave it null with {key}")


def _check_map(config: MemberConfig) -> None:
    """What members of several places go with."""
    site, sae = config.site, config.sae
    if sae.skip and site.output is None:
        raise ConfigError("sae.skip=true is a transcoder's; give site.output too, or choose site=mlp")
    told = {key: getattr(site, key) for key in ("models", "across", "output") if getattr(site, key) is not None}
    if not told:
        return
    key, value = next(iter(told.items()))
    named = f"site.{key}={shown(value)}"
    if site.output is not None and site.across is not None:
        _check_cross_layer(config)
    if sae.lookup != "none":
        raise ConfigError(f"sae.lookup={sae.lookup} is an autoencoder's at one site; take none with {named}")
    if not config.training.local:
        raise ConfigError(
            f"training.objective={config.training.objective} is an autoencoder's at one site; take local with {named}"
        )
    if config.init_from is not None:
        raise ConfigError(f"init_from={config.init_from} is an autoencoder's at one site; leave it null with {named}")


def _check_cross_layer(config: MemberConfig) -> None:
    """What cross-layer transcoders do not go with."""
    site, sae = config.site, config.sae
    unread = {
        "sae.skip": "true" if sae.skip else None,
        "sae.decoder_init": "pca" if sae.decoder_init == "pca" else None,
    }
    for key, value in unread.items():
        if value is not None:
            raise ConfigError(f"{key}={value} is not for cross-layer transcoders (site.across={shown(site.across)})")


def _check_whitening(config: MemberConfig) -> None:
    """What members of whitened inputs do not go with."""
    if not config.sae.whitens:
        return
    named = {
        "site.across": None if config.site.across is None else shown(config.site.across),
        "site.models": None if config.site.models is None else shown(config.site.models),
        "training.objective": None if config.training.local else config.training.objective,
        "init_from": config.init_from,
    }
    for key, value in named.items():
        if value is not None:
            raise ConfigError(f"{key}={value} is not for whitened inputs; take sae.input_scale=sqrt_d with it")


def _check_pairs(config: MemberConfig) -> None:
    """What members that are trained on neighbouring tokens do not go with."""
    asked, kind = f"sae={config.sae.architecture} is trained on tokens and those before them", config.data.kind
    if config.sae.pairs and modelless_kind(kind) is not None:
        raise ConfigError(f"data.kind={kind}: {asked}, and these activations have no order; take tokens of a model")
    if config.sae.pairs and not config.training.local:
        raise ConfigError(f"training.objective={config.training.objective}: {asked}; take local")


def _check_training(config: MemberConfig) -> None:
    training, data = config.training, config.data
    _above("training.tokens", training.tokens, 0)
    _at_least("training.batch_size", training.batch_size, 1)
    block = data.block_rows * data.context
    if training.batch_size > block:
        raise ConfigError(
            f"training.batch_size={training.batch_size} is larger than a block of activations, data.block_rows x"
            f" data.context = {data.block_rows} x {data.context} = {block}; lower the one or raise the others"
        )
    if training.tokens < training.batch_size:
        raise ConfigError(
            f"training.tokens={shown(training.tokens)} is less than one step, training.batch_size={training.batch_size}"
        )
    for key, value in (("lr", training.lr), ("bias_lr", training.bias_lr), ("eps", training.eps)):
        if value is not None:
            _above(f"training.{key}", value, 0)
    for key, number in (("lr_warmup_steps", training.lr_warmup_steps), ("clip", training.clip)):
        _at_least(f"training.{key}", number, 0)
    _at_least("training.sparsity_warmup_steps", training.sparsity_warmup_steps, 0)
    for key, value in (("beta1", training.beta1), ("beta2", training.beta2)):
        _within(f"training.{key}", value, 0, 1, "from 0 to below 1")
    _at_least("training.checkpoint_minutes", training.checkpoint_minutes, 0)
    _at_least("training.checkpoint_tokens", training.checkpoint_tokens, 1)
    _within("training.lr_decay_fraction", training.lr_decay_fraction, 0, 1 + 1e-12, "from 0 to 1")
    if training.lr_schedule is not None:
        _one_of("training.lr_schedule", training.lr_schedule, LR_SCHEDULES)
    if training.lr_schedule == "constant" and training.lr_decay_fraction:
        raise ConfigError(
            f"training.lr_decay_fraction={shown(training.lr_decay_fraction)}: nothing falls with"
            " training.lr_schedule=constant; leave it null, or choose linear or cosine"
        )
    for tokens in training.milestones if isinstance(training.milestones, list) else ():
        if not 1 <= tokens <= training.tokens:
            raise ConfigError(
                f"training.milestones={shown(training.milestones)}: {tokens} must be at least 1 and at most"
                f" training.tokens={shown(training.tokens)}"
            )


def _check_precision(config: MemberConfig) -> None:
    precision = config.training.precision
    _one_of("training.precision", precision, PRECISIONS)
    if config.model.device == "cpu" and precision in ("tf32", "bf16"):
        raise ConfigError(f"training.precision={precision} is for GPUs; leave it auto, or give model.device=cuda")


def _check_objective(config: MemberConfig) -> None:
    training, data = config.training, config.data
    _one_of("training.objective", training.objective, tuple(OBJECTIVE_KEYS))
    for key, value in (("kl", training.kl_coefficient), ("downstream", training.downstream_coefficient)):
        _above(f"training.{key}_coefficient", value, 0)
    _at_least("training.downstream_sites", training.downstream_sites, 1)
    if training.local:
        return
    asked = f"training.objective={training.objective}"
    if modelless_kind(data.kind) is not None:
        raise ConfigError(f"{asked} runs a language model, and data.kind={data.kind} has none; take local")
    if training.batch_size % data.context:
        whole = max(1, round(training.batch_size / data.context)) * data.context
        raise ConfigError(
            f"training.batch_size={training.batch_size} is not a multiple of data.context={data.context}, and {asked}"
            f" takes whole rows; take {whole}"
        )
    unit = getattr(config.sae, "coefficient_unit", "sum")
    if training.objective != "kl_mse" and unit != "sum":
        raise ConfigError(f"sae.coefficient_unit={unit} is about a squared error, and {asked} is in nats; leave it sum")


def _check_evaluation(config: MemberConfig) -> None:
    evaluation, context = config.evaluation, config.data.context
    _one_of("evaluation.positions", evaluation.positions, POSITIONS)
    if evaluation.tokens < context:
        raise ConfigError(
            f"evaluation.tokens={shown(evaluation.tokens)} is less than one row, data.context={context}; raise it"
        )
    if evaluation.every is not None:
        _at_least("evaluation.every", evaluation.every, 1)
    _at_least("evaluation.later_sites", evaluation.later_sites, 0)


def _check_launcher(config: MemberConfig) -> None:
    launcher = config.launcher
    sizes = ("memory_gb", launcher.memory_gb), ("host_memory_gb", launcher.host_memory_gb)
    for key, value in (*sizes, ("device_flops", launcher.device_flops)):
        if value is not None:
            _above(f"launcher.{key}", value, 0)
    _within("launcher.devices", launcher.devices, 1, MOST_DEVICES + 1, f"from 1 to {MOST_DEVICES}")
    _at_least("launcher.hosts", launcher.hosts, 1)
    if launcher.devices % launcher.hosts:
        raise ConfigError(
            f"launcher.devices={launcher.devices} cannot be spread evenly over launcher.hosts={launcher.hosts}"
        )
    check_shared(config, launcher.devices)


def check_shared(config: MemberConfig, devices: int) -> None:
    """Raises ConfigError for a member that cannot be in a group that several devices share."""
    check_ranks(config, devices)
    if devices > 1 and not config.training.local:
        raise ConfigError(
            f"training.objective={config.training.objective} is trained on one device only, and there are {devices}"
            " (launcher.devices, or torchrun); take local, or one device"
        )


def _one_of(key: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{key}={value} is not one of {', '.join(known)}")


def _at_least(key: str, value: float | None, least: float) -> None:
    if value is not None:
        _within(key, value, least, inf, f"at least {least:g}")


def _above(key: str, value: float, bound: float) -> None:
    if value <= bound:
        raise ConfigError(f"{key}={shown(value)} must be above {bound:g}")


def _within(key: str, value: float | None, least: float, below: float, words: str) -> None:
    if value is not None and not least <= value < below:
        raise ConfigError(f"{key}={shown(value)} must be {words}")
