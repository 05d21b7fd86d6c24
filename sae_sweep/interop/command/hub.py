"""SAEs that are named, not where they lie: `hub:USER/REPO/MEMBER@REVISION` of the Hugging Face hub. No torch."""

from pathlib import Path

from sae_sweep.errors import ConfigError, one_line
from sae_sweep.host.network import look_at_hub

HUB = "hub:"


def located(source: str | Path) -> Path:
    """The folder or file of an SAE, downloaded where it is named on the hub. Raises ConfigError where it cannot be."""
    name = str(source)
    return _downloaded(name.removeprefix(HUB)) if name.startswith(HUB) else Path(source).expanduser()


def _downloaded(name: str) -> Path:
    """The folder or file that a name on the hub is downloaded to."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    place, _, revision = name.partition("@")
    user, *rest = place.strip("/").split("/")
    if not rest:
        raise ConfigError(f"{HUB}{name} is not hub:USER/REPO/MEMBER@REVISION")
    member = "/".join(rest[1:])
    look_at_hub()
    try:
        root = snapshot_download(
            f"{user}/{rest[0]}", revision=revision or None, allow_patterns=[member, f"{member}/*"] if member else None
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(f"{HUB}{name} cannot be downloaded: {one_line(error)}") from error
    return Path(root) / member
