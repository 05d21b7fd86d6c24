"""The sweep's name, how to read its charts, how many members are in what state, and how they came to be."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from sae_sweep.config.values import count, duration
from sae_sweep.folder import names
from sae_sweep.host.json_files import read_object
from sae_sweep.reporting.cell import modelless
from sae_sweep.reporting.page import Cell, Page

PLACE, SPAN = 0, "page"


def html(page: Page, cell: Cell | None) -> str:
    """The head of the page."""
    record = page.record
    states = [("finished", len(record.points) + len(record.notes))]
    for state in ("running", "interrupted", "planned", "failed"):
        states.append((state, sum(member["state"] == state for member in record.unfinished)))
    told = ", ".join(f"{number} {state}" for state, number in states if number) or "no members"
    toy = bool(page.cells) and all(modelless(cell["key"]) is not None for cell in page.cells)
    kept = "explains more of the activations" if toy else "keeps more of the model's performance"
    return (
        f"<header><p class=eyebrow>sae-sweep report</p><h1>{escape(record.name)}</h1><p class=lead>Each point is one"
        f" sparse autoencoder: further left it uses fewer latents per token, higher up it {kept}, so"
        " better lies up and to the left, and the lines join each architecture's best.</p>"
        f"<p class=quiet>Members: {told}.</p>{_made(page)}</header>"
    )


def _made(page: Page) -> str:
    """How the members came to be, as their provenance.json say; nothing where none does."""
    found = [entries for folder in page.record.folders.values() if (entries := provenance(folder))]
    if not found:
        return ""
    facts = "".join(f"<div><dt>{term}</dt><dd>{escape(said)}</dd></div>" for term, said in _facts(found) if said)
    commands = _each(entries.get("command") for entries in found)
    shown = "".join(f"<pre>{escape(command)}</pre>" for command in commands)
    return f"<dl class=facts>{facts}</dl><details class=commands open><summary>Command</summary>{shown}</details>"


def provenance(folder: Path) -> dict[str, Any]:
    """A member's provenance.json; empty where it has none of use, as older ones and foreign ones do."""
    try:
        found = read_object(folder / names.PROVENANCE)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found.get("config"), dict) and isinstance(found.get("versions"), dict) else {}


def _facts(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    configs = [entries["config"] for entries in found]
    model, data, training = ([config.get(group, {}) for config in configs] for group in ("model", "data", "training"))
    versions = [", ".join(f"{name} {version}" for name, version in entries["versions"].items()) for entries in found]
    return [
        ("Finished", _dates(entries.get("ended") for entries in found)),
        ("Model", _words(_each(f"{one.get('path') or one.get('name')} ({one.get('dtype')})" for one in model))),
        ("Data", _words(_each(one.get("path") or one.get("kind") for one in data))),
        ("Training tokens", _words(_each(count(one.get("tokens")) for one in training))),
        ("Device", _words(_each(f"{entries.get('device')} of {entries.get('host')}" for entries in found))),
        ("Wall time", duration(_wall(found))),
        ("Commit", _words(_each(_commit(entries.get("commit")) for entries in found))),
        ("Versions", _words(_each(versions))),
    ]


def _commit(commit: str | None) -> str:
    """Short; `+` says that files were changed."""
    return "of a release" if not commit else commit[:12] + "+" * commit.endswith("+")


def _each(values: Iterable[Any]) -> list[str]:
    """Different ones, in the order in which they come."""
    return list(dict.fromkeys(str(value) for value in values if value is not None))


def _words(values: list[str], most: int = 3) -> str:
    return ", ".join(values[:most]) + (f" and {len(values) - most} more" if len(values) > most else "")


def _dates(ended: Iterable[Any]) -> str:
    days = sorted({str(end)[:16].replace("T", " ") for end in ended if end})
    return "" if not days else f"{days[-1]} UTC"


def _wall(found: Iterable[Mapping[str, Any]]) -> float:
    """Seconds of the processes that finished members, each from its start to the last that it finished."""
    longest: dict[tuple[Any, Any], float] = {}
    for entries in found:
        try:
            start, end = (datetime.fromisoformat(str(entries[key])) for key in ("started", "ended"))
        except (KeyError, ValueError):
            continue
        of = entries.get("host"), entries["started"]
        longest[of] = max(longest.get(of, 0.0), (end - start).total_seconds())
    return sum(longest.values())
