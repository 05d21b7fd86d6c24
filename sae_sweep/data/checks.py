"""What can be told of the data from the config and the presence of files alone. No torch, no numpy."""

from pathlib import Path

from sae_sweep.config.schema import DataConfig, ToyConfig
from sae_sweep.config.values import shown
from sae_sweep.data.columns import missing_locally
from sae_sweep.data.documents import Origin, text_files
from sae_sweep.errors import ConfigError

KINDS = ("demo", "text", "hub", "tokens", "toy")
BOS_POLICIES = ("auto", "always", "never")


def check_data(config: DataConfig) -> None:
    """Raises ConfigError for what can be told from the config and the presence of files alone."""
    if config.kind not in KINDS:
        raise ConfigError(f"data.kind={config.kind} is not one of {', '.join(KINDS)}")
    if config.bos not in BOS_POLICIES:
        raise ConfigError(f"data.bos={config.bos} is not one of {', '.join(BOS_POLICIES)}")
    least = {"context": 2, "seed": 0, "window_rows": 1, "block_rows": 1, "rows_per_forward": 1}
    for name, bound in least.items():
        if getattr(config, name) < bound:
            raise ConfigError(f"data.{name}={getattr(config, name)} must be at least {bound}")
    if config.max_norm_ratio is not None and not config.max_norm_ratio > 1:
        raise ConfigError(f"data.max_norm_ratio={config.max_norm_ratio:g} must be above 1, or null for no guard")
    if (config.toy is None) == (config.kind == "toy"):
        does = "needs" if config.toy is None else "takes no"
        raise ConfigError(f"data.kind={config.kind} {does} data.toy; data={config.kind} sets both")
    if config.toy is not None:
        _check_toy(config.toy, config)
        return
    _check_cache(config.cache)
    if config.kind == "demo":
        _check_no_paths(config)
    else:
        _check_paths(config)


def _check_toy(toy: ToyConfig, config: DataConfig) -> None:
    for name in ("dimensions", "latents"):
        if getattr(toy, name) < 1:
            raise ConfigError(f"data.toy.{name}={getattr(toy, name)} must be at least 1")
    if not 0 < toy.active <= toy.latents:
        raise ConfigError(f"data.toy.active={toy.active:g} must be above 0 and at most data.toy.latents={toy.latents}")
    if not 0 < toy.decay <= 1:
        raise ConfigError(f"data.toy.decay={toy.decay:g} must be above 0 and at most 1")
    if toy.noise < 0:
        raise ConfigError(f"data.toy.noise={toy.noise:g} must not be negative")
    for key in ("path", "name", "heldout_path", "heldout_split", "max_norm_ratio", "cache"):
        value = getattr(config, key)
        if value is not None:
            raise ConfigError(f"data.{key}={shown(value)} is not read with data.kind=toy; leave it null")


def _check_cache(cache: str | None) -> None:
    if cache is None:
        return
    folder = Path(cache).expanduser().absolute()
    place = next(each for each in (folder, *folder.parents) if each.exists())
    if not cache or not place.is_dir():
        why = f"{place} is a file" if cache else "it is empty"
        raise ConfigError(f"data.cache={cache} is no folder ({why}); give a folder, or null to keep nothing")


def _check_no_paths(config: DataConfig) -> None:
    for key in ("path", "heldout_path", "heldout_split"):
        value = getattr(config, key)
        if value is not None:
            raise ConfigError(f"data.{key}={value} is not read with data.kind=demo; take data=text, hub or tokens")


def _check_paths(config: DataConfig) -> None:
    if not config.path:
        raise ConfigError(f"data.path is needed with data.kind={config.kind}")
    train, heldout = training_origin(config), heldout_origin(config)
    if heldout is not None and (train.path, train.split) == (heldout.path, heldout.split):
        raise ConfigError(
            f"{heldout.label} ({heldout.split_key}={heldout.split}) is the training data, which cannot be held out"
        )
    if config.heldout_split is not None and (config.kind == "text" or is_array(heldout or train)):
        raise ConfigError(f"data.heldout_split={config.heldout_split}: files have no splits; take data.heldout_path")
    if config.kind == "text":
        files = [{file.resolve() for file in text_files(origin)} for origin in (train, heldout) if origin]
        if heldout is not None and files[0] & files[1]:
            raise ConfigError(f"{heldout.label} names files of data.path too, such as {min(files[0] & files[1])}")
        return
    for origin in filter(None, (train, heldout)):
        if missing_locally(origin.single_path()):
            raise ConfigError(f"{origin.label} does not exist")


def training_origin(config: DataConfig) -> Origin:
    return Origin("data.path", config.path, config.name, "data.split", config.split, config.field)


def heldout_origin(config: DataConfig) -> Origin | None:
    own_split = config.heldout_split is not None
    split_key, split = ("data.heldout_split", config.heldout_split) if own_split else ("data.split", config.split)
    assert split is not None
    if config.heldout_path is not None:  # another dataset, so data.name, a configuration of the first, is not its
        return Origin("data.heldout_path", config.heldout_path, None, split_key, split, config.field)
    return Origin("data.path", config.path, config.name, split_key, split, config.field) if own_split else None


def is_array(origin: Origin) -> bool:
    return isinstance(origin.path, str) and Path(origin.path).suffix in (".npz", ".npy")
