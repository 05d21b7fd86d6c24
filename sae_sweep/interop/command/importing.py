"""`sae-sweep import SOURCE --out DIR [--format F] [--model ID] [--site HOOK]`: an SAE of another program as a member.

SOURCE is a folder, a file or `hub:USER/REPO/FOLDER`. What its files do not say is given:

    --model ID_OR_FOLDER  --site HOOK  --output HOOK (of a transcoder, where it writes)
    --k N  --threshold X  --activation relu|topk  --subtract-b-dec true|false  --layout DF,FD

DIR is then a folder as training leaves one, with provenance.json; of a set it has one folder for each of its SAEs.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

from sae_sweep import __version__
from sae_sweep.config.command_line import one_option, split_options
from sae_sweep.errors import ConfigError
from sae_sweep.folder.provenance import write_import
from sae_sweep.interop import Given, format_of, load_sae, saelens, told
from sae_sweep.interop.command.export import check_empty
from sae_sweep.interop.command.hub import located
from sae_sweep.saes.inference import InferenceSae

PLACES = {"model": "model_name", "site": "hook_name", "output": "hook_name_out"}
"""Options that say where it belongs, and what cfg.json calls that."""
TRUTHS = {"true": True, "false": False}
GIVEN: Mapping[str, Callable[[str], Any]] = {
    "k": int,
    "threshold": float,
    "activation": str,
    "subtract-b-dec": TRUTHS.__getitem__,
    "layout": str,
}
"""Options that say what the SAE is, and how each is read."""


def import_saes(arguments: Sequence[str]) -> None:
    """Do what the command line says, and say what was written. Raises ConfigError, and then nothing is."""
    words, options = split_options("import", arguments, ("out", "format", *PLACES, *GIVEN))
    if len(words) != 1:
        raise ConfigError("import: takes one folder or file, as in `sae-sweep import DIR --out outputs/theirs`")
    once = {name: one_option("import", options, name) for name in options}
    out, given = Path(one_option("import", options, "out")).expanduser(), _given(once)
    places = {own: once[name] for name, own in PLACES.items() if name in once}
    source, named = located(words[0]), once.get("format")
    check_empty("import", out)
    try:
        kind = format_of(source, named)
        files = kind.members(source) if hasattr(kind, "members") else [source]
        _check_set(files, once)
        with _appearing(out) as folder:
            for file in files:
                _import_one(file, folder / file.stem if len(files) > 1 else folder, words[0], named, given, places)
    except ValueError as error:
        raise ConfigError(f"import: {error}") from error
    except OSError as error:
        raise ConfigError(f"import: {error.filename}: {error.strerror}") from error
    what = f"{len(files)} SAEs are" if len(files) > 1 else "the SAE is"
    print(f"sae-sweep: {what} in {out}, from {words[0]} ({kind.__name__.rpartition('.')[2]})")


def _check_set(files: Sequence[Path], once: Mapping[str, str]) -> None:
    """Raises ValueError for one hook of several SAEs."""
    for name in ("site", "output"):
        if len(files) > 1 and name in once:
            raise ValueError(
                f"--{name}={once[name]} is one hook, and this is a set of {len(files)}; leave it out, or import the"
                f" files one by one, as {files[0]}"
            )


def _import_one(
    place: Path, folder: Path, source: str, named: str | None, given: Given, places: Mapping[str, str]
) -> None:
    """Write one SAE into a folder. Raises ValueError where nothing says its model or its hooks."""
    started, sae = datetime.now(UTC), load_sae(place, named, given)
    metadata = {**told(place, named), **places}
    if "hook_name_out" in places and not sae.transcodes:
        sae = _transcoder(place, sae)
    wanted = {"model_name": "model", "hook_name": "site"} | ({"hook_name_out": "output"} if sae.transcodes else {})
    for name, option in wanted.items():
        if not isinstance(metadata.get(name), str) and not metadata.get("hook_names"):
            raise ValueError(f"{place} does not say its {name}; give --{option}")
    folder.mkdir(exist_ok=True)
    saelens.write(folder, sae, {**metadata, "imported_by": f"sae-sweep {__version__}"}, None)
    files = [place] if place.is_file() else sorted(file for file in place.iterdir() if file.is_file())
    write_import(folder, source, files, started)


def _transcoder(place: Path, sae: InferenceSae) -> InferenceSae:
    """The same tensors as they write elsewhere than they read, which files of a format may not say. Raises ValueError
    for an SAE that cannot."""
    if sae.subtract_b_dec or sae.sites > 1 or sae.lookup is not None:
        raise ValueError(f"{place} reconstructs what it reads; leave --output out")
    return replace(sae, transcodes=True).as_saved()


def _given(once: Mapping[str, str]) -> Given:
    """Raises ConfigError for values that cannot be."""
    found = {}
    for name, read in GIVEN.items():
        if name not in once:
            continue
        try:
            found[name.replace("-", "_")] = read(once[name])
        except (ValueError, KeyError):
            what = {"subtract-b-dec": "true or false", "k": "a whole number"}.get(name, "a number")
            raise ConfigError(f"import: --{name}={once[name]} is not {what}") from None
    try:
        return Given(**found)
    except ValueError as error:
        raise ConfigError(f"import: --{str(error).replace('_', '-')}") from error


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder beside another one that takes its place, or is gone where an error ends this."""
    folder = out.with_name(f".{out.name}.{token_hex(4)}.importing")
    folder.mkdir(parents=True)
    try:
        yield folder
        if out.exists():
            out.rmdir()
        folder.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
