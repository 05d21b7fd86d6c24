"""What lies under the names that a config gives: model, tokenizer and data, so that other content is not taken for it.

A local file is known by its size, its time and a hash of it; something of the hub by the commit that is downloaded or
streamed; the text of data=demo by the interpreter whose own it is, and its hash. A sweep keeps the fingerprints of each
member from when it was begun, and the next command compares. Activations made without a model, which are all in the
config, have none. No torch.
"""

import os
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sae_sweep.config.schema import MemberConfig, ModelConfig
from sae_sweep.data.hub_commit import streamed_commit
from sae_sweep.data.kinds import DataKind, data_kind
from sae_sweep.data.origin import Origin, origins, sources_of
from sae_sweep.errors import ConfigError
from sae_sweep.model.adapters import FILES, adapter_folder
from sae_sweep.model.facts import WEIGHTS, model_folder
from sae_sweep.model.second import models_of

WEIGHT_FILES = (*WEIGHTS, "config.json", "*.py")
"""What makes a local folder the model it is; its tokenizer shows in the tokens."""
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model")
MODEL_KEYS = (
    *("model.path", "model.path (its tokenizer)", "model.adapter"),
    *("site.models", "site.models (the second's tokenizer)"),
)
SMALL_BYTES = 2**26
"""Files up to this size are read again even where their time has not changed."""
READ_BYTES = 2**22
MANY = 32
"""More files than this are known together: each member of a sweep keeps what is said of them."""

Fingerprint = dict[str, Any]
"""`reference`, what the config says; `files`, by name `bytes` and `modified_ns`, and once kept `hash`; or `commit`; and
`whose` files they are, where they are no path's."""


def fingerprints(config: MemberConfig) -> dict[str, Fingerprint]:
    """Of what a member is trained on, by the key that names it; without hashes."""
    found: dict[str, Fingerprint] = {}
    kind = data_kind(config.data.kind)
    if kind.MODEL:
        for key, patterns in zip(MODEL_KEYS[:2], (WEIGHT_FILES, TOKENIZER_FILES), strict=True):
            found[key] = _model(config.model, patterns)
        if config.model.adapter is not None:
            found[MODEL_KEYS[2]] = _adapter(config.model, config.model.adapter)
        for second in models_of(config)[1:]:
            for key, patterns in zip(MODEL_KEYS[3:], (WEIGHT_FILES, TOKENIZER_FILES), strict=True):
                found[key] = _model(second, patterns)
    if "path" in kind.READS and config.data.path:
        sources = sources_of(config.data)
        for number, (source, _) in enumerate(sources, 1):
            for origin in filter(None, origins(source)):
                found[origin.key + (f" ({number})" if len(sources) > 1 else "")] = _data(origin, kind)
    if hasattr(kind, "own_files"):
        found["data"] = _own(config.data.kind)
    return {key: each for key, each in found.items() if each.get("files") or each.get("commit")}


def hashed(found: Mapping[str, Fingerprint]) -> dict[str, Fingerprint]:
    """The same with a hash of each file, as they are kept; without where the files are."""
    return {
        key: {name: value for name, value in each.items() if name not in ("files", "folder", "all", "digest")}
        | ({"files": {name: {**about, "hash": _hash(each, name)} for name, about in each["files"].items()}})
        if "files" in each
        else each
        for key, each in found.items()
    }


def digests(found: Mapping[str, Fingerprint]) -> dict[str, str]:
    """Of hashed fingerprints: by key, the commit, or 32 hex digits of what files hold, wherever they are."""
    return {
        key: each.get("commit") or _digest(about["hash"] for _, about in sorted(each["files"].items()))
        for key, each in found.items()
    }


def check_same(kept: Mapping[str, Any], config: MemberConfig, label: str) -> None:
    """Raises ConfigError where what a member was trained on, as it was kept, is under the same name other content now.

    What has another name is another thing, and is not compared.
    """
    for key, now in fingerprints(config).items():
        then = kept.get(key)
        if isinstance(then, Mapping) and then.get("reference") == now["reference"] and (why := _changed(then, now)):
            if then.get("whose") != now.get("whose"):
                why = f"its text is that of {now.get('whose')}, which was that of {then.get('whose')}, and has changed"
            raise ConfigError(
                f"{key.partition(' ')[0]}={now['reference']}: {why} since {label} was begun; restore it, or give"
                " another name= to train on what is there now"
            )


def file_states(files: Iterable[tuple[str, Path]]) -> dict[str, dict[str, int]]:
    """Sizes and times of files, by the names that are given."""
    found = {name: path.stat() for name, path in files}
    return {name: {"bytes": about.st_size, "modified_ns": about.st_mtime_ns} for name, about in sorted(found.items())}


def weight_files(folder: Path, patterns: Iterable[str] = WEIGHT_FILES) -> dict[str, dict[str, int]]:
    """Those of a local model's folder, by name."""
    return file_states((path.name, path) for pattern in patterns for path in folder.glob(pattern) if path.is_file())


def _model(config: ModelConfig, patterns: Iterable[str]) -> Fingerprint:
    folder, reference = model_folder(config), config.path or config.name
    if folder is not None:
        return {"reference": reference, "folder": folder, "files": weight_files(folder, patterns)}
    revision = config.revision or "main"
    return {"reference": f"{reference}@{revision}", "commit": _commit("models", str(reference), revision)}


def _adapter(config: ModelConfig, reference: str) -> Fingerprint:
    folder = adapter_folder(config)
    if folder is not None:
        return {"reference": reference, "folder": folder, "files": weight_files(folder, FILES)}
    return {"reference": reference, "commit": _commit("models", reference, "main")}


def _data(origin: Origin, kind: DataKind) -> Fingerprint:
    reference = str(origin.path)
    found = kind.files(origin)
    if "name" in kind.READS:
        reference += "".join(f" {word}" for word in (origin.name, origin.split) if word)
    if found is None:
        commit = streamed_commit(str(origin.path)) or _commit("datasets", str(origin.path), "main")
        return {"reference": reference, "commit": commit}
    files = [(str(file), file) for file in found]
    return _together({"reference": reference, "folder": Path(), "files": file_states(files)})


@cache
def _own(kind: str) -> Fingerprint:
    """Of text that is no path's. It stays as it is while a process runs."""
    whose, folder, names = data_kind(kind).own_files()  # type: ignore[attr-defined]  # asked of those that have it
    files = file_states((name, folder / name) for name in names)
    return _together({"reference": kind, "whose": whose, "folder": folder, "files": files})


def _together(found: Fingerprint) -> Fingerprint:
    """The same, where there are many files, with one entry for all of them."""
    files = found["files"]
    if len(files) <= MANY:
        return found
    times = blake2b(repr([(name, about["modified_ns"]) for name, about in files.items()]).encode(), digest_size=6)
    total = {"bytes": sum(about["bytes"] for about in files.values()), "modified_ns": int(times.hexdigest(), 16)}
    return {**found, "files": {f"one of {len(files)} files": total}, "all": list(files)}


def _commit(kind: str, repository: str, revision: str) -> str | None:
    """The commit of what the hub's cache has; None where it has nothing yet."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    try:
        cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
        file = cache / f"{kind}--{repository.replace('/', '--')}" / "refs" / revision
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError, RuntimeError):  # the last of one who has no home
        return None


def _changed(then: Mapping[str, Any], now: Fingerprint) -> str | None:
    """What is not as it was, in words; None where all is."""
    if then.get("commit") != now.get("commit") and None not in (then.get("commit"), now.get("commit")):
        return f"it has moved from commit {str(then['commit'])[:12]} to {now['commit'][:12]}"
    before, after = then.get("files"), now.get("files")
    if not isinstance(before, Mapping) or after is None:
        return None
    for name in sorted(set(before) ^ set(after)):
        return f"{name} has {'gone' if name in before else 'come'}"
    for name, about in after.items():
        old = before[name]
        if old["bytes"] != about["bytes"]:
            return f"{name} has changed from {old['bytes']:,} to {about['bytes']:,} bytes"
        touched = old["modified_ns"] != about["modified_ns"] or about["bytes"] <= SMALL_BYTES
        if touched and old["hash"] != _hash(now, name):
            return f"{name} has other content of the same size"
    return None


def _hash(found: Fingerprint, name: str) -> str:
    if "all" in found:
        if "digest" not in found:
            found["digest"] = _digest((one, _hash({"folder": found["folder"]}, one)) for one in found["all"])
        return str(found["digest"])
    path = (found["folder"] / name).expanduser()
    state = path.stat()
    return _file_hash(str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def _digest(each: Iterable[Any]) -> str:
    return blake2b(repr(list(each)).encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=4096)
def _file_hash(path: str, size: int, modified_ns: int, changed_ns: int) -> str:
    """32 hex digits. A process reads a file once for each size and times."""
    digest = blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    return digest.hexdigest()
