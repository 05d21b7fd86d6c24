"""The finished member that another begins from (`init_from`): what it is, read from its folder. No torch."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sae_sweep.config.files import config_folder
from sae_sweep.errors import ConfigError
from sae_sweep.folder.names import CARD, LOOKUP, METRICS, WEIGHTS
from sae_sweep.host.json_files import read_object

READ_BYTES = 2**22


def weights_hash(folder: str) -> str:
    """Hash of a member's weights, wherever they lie: 16 hex digits. Raises ConfigError where there are none."""
    files = [Path(folder).expanduser() / name for name in (WEIGHTS, LOOKUP)]
    try:
        found = [(file, file.stat()) for file in files if file == files[0] or file.exists()]
        return _hash(tuple((str(file), state.st_mtime_ns, state.st_size) for file, state in found))
    except OSError as error:
        raise ConfigError(
            f"init_from={folder} holds no finished member ({WEIGHTS}: {error.strerror}); {_first(folder)}"
        ) from error


@lru_cache
def _hash(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _, _ in files:
        with Path(path).open("rb") as file:
            while part := file.read(READ_BYTES):
                digest.update(part)
    return digest.hexdigest()[:16]


def check_origin(folder: str, wanted: Mapping[str, Any]) -> None:
    """Raises ConfigError unless the member was one of the same architecture, sizes and site: `wanted` by key."""
    card = _read(Path(folder).expanduser() / CARD, folder)
    metadata = card.get("metadata", {})
    found = {
        "sae": metadata.get("training_architecture"),
        "width": card.get("d_sae"),
        "d": card.get("d_in"),
        "site": metadata.get("hook_name"),
        "output": metadata.get("hook_name_out"),
    }
    for key, value in wanted.items():
        if found[key] != value:
            raise ConfigError(f"init_from={folder} has {key} {found[key]}, and this member {value}; they must agree")


def last_coefficient(folder: str) -> float | None:
    """The sparsity coefficient that the member ended with, in its unit; None where it has none, or where it was
    weighed against something other than a squared error."""
    objective = _read(Path(folder).expanduser() / CARD, folder).get("metadata", {}).get("training_objective", "local")
    if objective not in ("local", "kl_mse"):
        return None
    value = _read(Path(folder).expanduser() / METRICS, folder).get("coefficient_final")
    return float(value) if isinstance(value, int | float) else None


def _read(file: Path, folder: str) -> dict[str, Any]:
    try:
        return read_object(file)
    except OSError as error:
        raise ConfigError(
            f"init_from={folder} holds no finished member ({file.name}: {error.strerror}); {_first(folder)}"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"init_from={folder}: {file.name} is not valid JSON ({error}); give another member"
        ) from error


def _first(folder: str) -> str:
    """What is to be done first, for a member that is not there."""
    sweep = Path(folder).parent.name
    known = (config_folder() / "experiment" / f"{sweep}.yaml").is_file()
    return f"train it first: sae-sweep +experiment={sweep}" if known else "give the folder of one"
