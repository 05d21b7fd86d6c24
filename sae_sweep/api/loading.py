"""SAEs from folders and from the Hugging Face hub, in any format that is known."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from sae_sweep.api.home import Home
from sae_sweep.api.sae import Sae
from sae_sweep.errors import ConfigError, one_line
from sae_sweep.interop import Given, load_sae, told
from sae_sweep.interop.command.hub import located


def load(
    source: str | Path,
    hook: str | None = None,
    model: str | None = None,
    format: str | None = None,  # noqa: A002 - it is a keyword that users write, named as the command's `--format`
    **given: Any,
) -> Sae:
    """The SAE in a folder or file, or of `hub:USER/REPO/MEMBER@REVISION` (the member and the revision may be left out).

    Any format of `sae_sweep/interop/` is read, and found out where `format` does not name it. `hook`, where it reads,
    and `model`, a folder or hub id, are for those that do not say them, and so are `k`, `threshold`, `activation`,
    `subtract_b_dec` and `layout` (docs/formats.md). Raises ConfigError, in one line, where there is no SAE, its files
    are damaged, or do not say what is not given.

    >>> sae = ss.load("outputs/mine/topk-l0_8-w256")
    >>> sae.W_dec.shape, sae.cfg.hook_name
    (torch.Size([256, 128]), 'blocks.2.hook_resid_post')
    """
    if unknown := set(given) - {field.name for field in fields(Given)}:
        known = ", ".join(field.name for field in fields(Given))
        raise ConfigError(f"load: {', '.join(sorted(unknown))}: not one of hook, model, format, {known}")
    place = located(source)
    if not place.exists():
        raise ConfigError(f"{source} does not exist; give the folder of one SAE, or hub:USER/REPO/MEMBER@REVISION")
    try:
        said = {"hook_name": hook, "model_name": model}
        found = told(place, format) | {key: value for key, value in said.items() if value is not None}
        return Sae(load_sae(place, format, Given(**given)), Home(place, found))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{source}: {one_line(error)}") from error
