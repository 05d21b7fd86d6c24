"""SAEs that were trained elsewhere and are judged into a sweep: where each is spliced, and what is kept of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import Evaluation, SplicedSae
from sae_sweep.evaluation.metrics import VERSION, closed
from sae_sweep.folder import names
from sae_sweep.folder.files import write_json_atomic
from sae_sweep.interop import load_sae, saelens
from sae_sweep.interop.command.export import card_metadata
from sae_sweep.interop.command.hub import HUB, located
from sae_sweep.model.facts import ModelFacts
from sae_sweep.model.sites import parse_hook, site_width
from sae_sweep.saes.inference import InferenceSae


@dataclass(frozen=True)
class ForeignSae:
    """One of them."""

    source: str
    spliced: SplicedSae
    metadata: dict[str, Any]

    def check_ids(self, largest: int) -> None:
        """Raises ConfigError where it has no row for a token id up to the largest that it will read."""
        lookup = self.spliced.sae.lookup
        if lookup is not None and len(lookup.rows_VD) <= largest:
            rows = len(lookup.rows_VD)
            raise ConfigError(f"--sae={self.source} has rows for {rows} token ids, and the tokens go to {largest}")

    def check(self, facts: ModelFacts) -> None:
        """Raises ConfigError where it does not fit the model's sites."""
        sae = self.spliced.sae
        for hook, own in ((self.spliced.reads or self.spliced.hook, sae.d), (self.spliced.hook, sae.d_out)):
            width = site_width(parse_hook(hook), facts)
            if width is not None and width != own:
                raise ConfigError(f"--sae={self.source} is for {own} numbers, and {hook} has {width}; give --hook")

    def write(self, root: Path, evaluation: Evaluation, config: dict[str, Any]) -> None:
        """Keep it in the sweep's folder, metrics.json last; `config` says what it was judged on."""
        folder = root / self.spliced.label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names.METRICS).unlink(missing_ok=True)
        sae, hooks = self.spliced.sae, {"hook_name": self.spliced.reads or self.spliced.hook}
        if self.spliced.reads is not None:
            hooks["hook_name_out"] = self.spliced.hook
        saelens.write(folder, sae, {**self.metadata, **hooks}, evaluation.frequency_F)
        site = {**config["site"], "hook": hooks["hook_name"], "output": hooks.get("hook_name_out"), "across": None}
        judged = {key: config[key] for key in ("model", "data", "evaluation")} | {"site": site}
        source = self.source if self.source.startswith(HUB) else str(Path(self.source).expanduser().resolve())
        about = {"source": source, "form": sae.form.saelens, "width": sae.width}
        write_json_atomic(folder / names.ORIGIN, {**about, "judged": judged})
        write_json_atomic(folder / names.METRICS, closed(evaluation.metrics) | {"version": VERSION})


def foreign_saes(sources: Sequence[str], hook: str | None, members: Sequence[SplicedSae]) -> list[ForeignSae]:
    """The SAEs of these folders, spliced where they say, or at `hook`, or where all members are. Raises ConfigError for
    what cannot be read, and where nothing says the place."""
    made = list[ForeignSae]()
    for source in sources:
        folder = located(source)
        try:
            sae, metadata = load_sae(folder), card_metadata(folder)
        except (ValueError, OSError) as error:
            raise ConfigError(f"--sae={source}: {error}") from error
        label = f"{names.FOREIGN}/{folder.resolve().name.removesuffix('.pt')}"
        if label in [one.spliced.label for one in made]:
            raise ConfigError(f"--sae={source}: another one has the same name, {label}; rename its folder")
        place = _place(source, sae, hook, metadata, members)
        made.append(ForeignSae(source, replace(place, label=label, sae=sae), metadata))
    return made


def _place(
    source: str, sae: InferenceSae, hook: str | None, metadata: dict[str, Any], members: Sequence[SplicedSae]
) -> SplicedSae:
    """Where it reads and writes, with the sites after it that members watch."""
    if sae.sites > 1:
        raise ConfigError(f"--sae={source} has several sites, which only members of a sweep may have")
    said = hook or metadata.get("hook_name")
    if not isinstance(said, str) or parse_hook(said).layer is None:
        places = {(one.reads, one.hook, one.beside) for one in members}
        if len(places) > 1:
            raise ConfigError(f"--sae={source} does not say its hook, and the sweep has several; give --hook=HOOK")
        return members[0]
    out = metadata.get("hook_name_out") if sae.transcodes else None
    alike = next((one for one in members if one.hook == (out or said) and not one.beside), None)
    watched = alike.watched if alike is not None else ()
    return SplicedSae("", out or said, sae, reads=said if out else None, watched=watched)
