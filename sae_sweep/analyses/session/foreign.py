"""SAEs that were trained elsewhere and are judged into a sweep: where each is spliced, and what is kept of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.config.files import other_site
from sae_sweep.data.kinds import modelless_kind
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import Evaluation, SplicedSae
from sae_sweep.evaluation.metrics import VERSION, closed
from sae_sweep.evaluation.places import check_widths
from sae_sweep.folder import names
from sae_sweep.folder.files import write_json_atomic
from sae_sweep.host.json_files import read_object
from sae_sweep.interop import load_sae, saelens
from sae_sweep.interop.command.export import card_metadata
from sae_sweep.interop.command.hub import HUB, located
from sae_sweep.model.facts import model_facts
from sae_sweep.model.sites import parse_hook, resolve_site
from sae_sweep.saes.inference import InferenceSae

PLAIN = ("site.across=null", "site.output=null", "site.models=null")
"""Where an autoencoder is, whatever members are."""


@dataclass(frozen=True)
class ForeignSae:
    """One of them."""

    source: str
    spliced: SplicedSae
    metadata: dict[str, Any]

    def check(self, widths: Callable[[Sequence[str]], dict[str, int | None]], largest: int | None) -> None:
        """Raises ConfigError where it does not fit its sites, of which `widths` says how wide they are, or has no row
        for a token id up to the largest that it will read; None where there are no tokens to read."""
        one, asked = self.spliced, "give --hook, or site.layer="
        check_widths(replace(one, label=f"--sae={self.source}"), widths(one.sites), asked)
        lookup = one.sae.lookup
        if lookup is not None and (largest is None or len(lookup.rows_VD) <= largest):
            rows, ids = len(lookup.rows_VD), "there are no tokens" if largest is None else f"the tokens go to {largest}"
            raise ConfigError(f"--sae={self.source} has rows for {rows} token ids, and {ids}")

    def write(self, root: Path, evaluation: Evaluation, config: dict[str, Any]) -> None:
        """Keep it in the sweep's folder, metrics.json last; `config` says what it was judged on."""
        folder = root / self.spliced.label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names.METRICS).unlink(missing_ok=True)
        sae, hooks = self.spliced.sae, {"hook_name": self.spliced.reads or self.spliced.hook}
        if self.spliced.reads is not None:
            hooks["hook_name_out"] = self.spliced.hook
        saelens.write(folder, sae, {**self.metadata, **hooks}, evaluation.frequency_F)
        places = {"hook": hooks["hook_name"], "output": hooks.get("hook_name_out"), "across": None, "models": None}
        site = {**config["site"], **places}
        judged = {key: config[key] for key in ("model", "data", "evaluation")} | {"site": site}
        about = {"source": _origin(self.source), "form": sae.form.saelens, "width": sae.width}
        write_json_atomic(folder / names.ORIGIN, {**about, "judged": judged})
        write_json_atomic(folder / names.METRICS, closed(evaluation.metrics) | {"version": VERSION})


def foreign_saes(
    root: Path, sources: Sequence[str], asked: Sequence[str], members: Sequence[FinishedSae]
) -> list[ForeignSae]:
    """The SAEs of these folders, spliced where keys of `site` say, in the command line's words, else where they do
    themselves, or where all members of the sweep in `root` are. Raises ConfigError for what cannot be read, and where
    nothing says the place."""
    made = list[ForeignSae]()
    for source in sources:
        if _origin(source) in [_origin(one.source) for one in made]:
            raise ConfigError(f"--sae={source} is given twice")
        folder = located(source)
        try:
            sae, metadata = load_sae(folder), card_metadata(folder)
        except (ValueError, OSError) as error:
            raise ConfigError(f"--sae={source}: {error}") from error
        label = _label(root, source, [one.spliced.label for one in made])
        place = _place(source, sae, asked, metadata, members)
        made.append(ForeignSae(source, replace(place, label=label, sae=sae), metadata))
    return made


def _origin(source: str) -> str:
    """What origin.json calls it, wherever the command is run."""
    return source if source.startswith(HUB) else str(Path(source).expanduser().resolve())


def _label(root: Path, source: str, taken: Sequence[str]) -> str:
    """foreign/NAME: the last part of its place, with as many of those before as set it apart from what the sweep has
    and from those taken. Raises ConfigError where nothing does."""
    origin = _origin(source)
    parts = Path(origin.removeprefix(HUB).partition("@")[0] if origin.startswith(HUB) else origin).parts
    for first in reversed(range(len(parts))):
        label = f"{names.FOREIGN}/{'-'.join(parts[first:]).removesuffix('.pt')}"
        if label not in taken and _is_free(root / label, origin):
            return label
    raise ConfigError(f"--sae={source}: others have every name that its place gives; rename its folder")


def _is_free(folder: Path, origin: str) -> bool:
    """Whether nothing was judged into it but what is from there."""
    if not (folder / names.METRICS).is_file():
        return True
    try:
        return bool(read_object(folder / names.ORIGIN).get("source") == origin)
    except (OSError, ValueError):  # whose it is, nobody knows
        return False


def _place(
    source: str, sae: InferenceSae, asked: Sequence[str], metadata: dict[str, Any], members: Sequence[FinishedSae]
) -> SplicedSae:
    """Where it reads and writes, with the sites after it that members watch."""
    if sae.places > 1:
        raise ConfigError(f"--sae={source} has several sites, which only members of a sweep may have")
    config, own = members[0].member.config, [one.spliced for one in members]
    given = None
    if asked:
        given = resolve_site(other_site(config, (*PLAIN, *asked)).site, model_facts(config.model))
    said = given.hook if given is not None else metadata.get("hook_name")
    if modelless_kind(config.data.kind) is not None or not isinstance(said, str) or parse_hook(said).layer is None:
        places = {(one.reads, one.hook, one.beside) for one in own}
        if len(places) > 1:
            raise ConfigError(
                f"--sae={source} does not say its hook, and the sweep has several; give site.layer=, or --hook=HOOK"
            )
        return own[0]
    out = metadata.get("hook_name_out") if sae.transcodes else None
    if sae.transcodes and given is not None and given.output is not None:
        out = given.output.hook
    alike = next((one for one in own if one.hook == (out or said) and not one.beside), None)
    watched = alike.watched if alike is not None else ()
    return SplicedSae("", out or said, sae, reads=said if out else None, watched=watched)
