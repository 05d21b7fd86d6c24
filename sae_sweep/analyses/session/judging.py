"""`sae-sweep eval DIR [--tokens N] [--sae DIR ...] [--format saebench] [data=... data.KEY=V ... site.KEY=V ...]`.

All finished members of a stream, and SAEs that were trained elsewhere, are judged again together in one clean pass, on
the same, more or other tokens. Keys of `site` say where SAEs from elsewhere are, and where there are none that members
are judged at another site than they were trained at. The mean of mean ablation stays that of the block that members
were calibrated on. What comes of it:

    <member>/eval/<hash>.json  every key of metrics.json; those of training as they are
    eval/<hash>.json           which tokens these are: the hash is of the tokens, positions and, if another, the site
    foreign/<name>/            another SAE, its metrics.json, and in origin.json where it is from
    eval/<hash>-saebench/      with --format saebench: a result file of SAEBench's core evaluation for each SAE
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from typing import Any

from sae_sweep.activations.first_block import read_first_block
from sae_sweep.analyses.session.courts import Court, court
from sae_sweep.analyses.session.finished import FinishedSae, finished_saes
from sae_sweep.analyses.session.foreign import ForeignSae, foreign_saes
from sae_sweep.config.command_line import one_option, split_options
from sae_sweep.config.files import other_data
from sae_sweep.config.reading import config_entries
from sae_sweep.config.values import shown
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import Evaluation, Evaluator, SplicedSae
from sae_sweep.folder import names
from sae_sweep.folder.files import write_json_atomic
from sae_sweep.host.memory import OUT_OF_MEMORY, give_back, is_out_of_memory
from sae_sweep.host.terminal import tell
from sae_sweep.interop import told
from sae_sweep.interop.saebench import core_config, core_result
from sae_sweep.plan.groups import stream_key

ALLOWED = ("data", "evaluation", "model.device", "model.device_map", "site")
SHOWN = ("l0", "ce_recovered", "kl", "fvu", "tokens_evaluated")


@dataclass(frozen=True)
class Asked:
    """What a command line asks."""

    overrides: tuple[str, ...]
    """But for those of `site`."""
    sites: tuple[str, ...]
    """Keys of `site`; `--hook` is one of them."""
    foreign: tuple[str, ...]
    saebench: bool


def judge(root: Path, arguments: Sequence[str], only: Sequence[str] = ()) -> None:
    """Judge again as the command line says, all finished members or those of some names, print the numbers and write
    them. Raises ConfigError before anything is written."""
    asked, finished = _asked(arguments), finished_saes(root, only)
    streams: dict[str, list[FinishedSae]] = {}
    for one in finished:
        streams.setdefault(stream_key(one.member.config), []).append(one)
    if asked.foreign and len(streams) > 1:
        raise ConfigError("eval: --sae is judged into a sweep of one model and one source of tokens; this has several")
    opened = [_Stream(root, members, asked) for members in streams.values()]
    for stream in opened:
        tell(stream.court.account, sys.stderr)
        found = stream.judged()
        check_finite(found)
        stream.write(root, found)


def check_finite(found: Mapping[str, Evaluation]) -> None:
    """Raises ConfigError for a number that no sound SAE has."""
    for label, evaluation in found.items():
        for key, value in evaluation.metrics.items():
            if isinstance(value, float) and not isfinite(value):
                raise ConfigError(
                    f"eval: {key} of {label} comes out as {value}: a file of it is damaged, or its weights are far too"
                    " large for these activations; train it anew"
                )


class _Stream:
    """Members that were trained on one stream of tokens, and what to judge them on."""

    def __init__(self, root: Path, members: Sequence[FinishedSae], asked: Asked) -> None:
        self._saebench = asked.saebench
        trained = other_data(members[0].member.config, [line for line in asked.overrides if line[:6] == "model."])
        self.config, self._batch = other_data(trained, asked.overrides), trained.data.rows_per_forward
        if (later := self.config.evaluation.later_sites) != trained.evaluation.later_sites:
            raise ConfigError(f"evaluation.later_sites={shown(later)}: it is asked for before training; leave it out")
        self._members = {one.label: one for one in members}
        for member in members:
            member.check_content(data=self.config.data == trained.data)
            _ = member.metrics  # what of them cannot be read is said before anything is written
        moves = () if asked.foreign else asked.sites
        self._saes = {one.label: one.at(moves) if moves else one.spliced for one in members}
        self._foreign: list[ForeignSae] = foreign_saes(root, asked.foreign, asked.sites, members)
        self._saes |= {one.spliced.label: one.spliced for one in self._foreign}
        given = any(line.startswith("evaluation.positions=") for line in asked.overrides)
        own = {label: one.member.config.evaluation.positions for label, one in self._members.items()}
        for label, spliced in self._saes.items():
            if self._saebench and spliced.reads_beside:
                raise ConfigError(f"eval: --format=saebench is for one site, and {label} is a cross-layer transcoder")
        self._positions = {
            label: self.config.evaluation.positions if given or label not in own else own[label] for label in self._saes
        }
        configs = [one.member.config for one in members]
        first_block = read_first_block(one.folder for one in members)
        self.court: Court = court(trained, self.config, list(self._saes.values()), configs, first_block=first_block)
        for one in self._foreign:
            one.check(self.court.widths, self.court.largest_id)

    def judged(self) -> dict[str, Evaluation]:
        """Every SAE, by label; those that count the same positions in one pass."""
        found: dict[str, Evaluation] = {}
        for positions in sorted(set(self._positions.values())):
            evaluator = self.court.evaluator(positions, core=self._saebench)
            own = [one for label, one in self._saes.items() if self._positions[label] == positions]
            found |= self._evaluated(evaluator, own)
        return found

    def _evaluated(self, evaluator: Evaluator, saes: Sequence[SplicedSae]) -> dict[str, Evaluation]:
        """All in one pass, or in as few as memory lasts for."""
        found: dict[str, Evaluation] = {}
        most = len(saes)
        while len(found) < len(saes):
            some = saes[len(found) : len(found) + most]
            try:
                found |= evaluator.evaluate([one.on(self.court.device) for one in some])
                continue
            except OUT_OF_MEMORY as error:
                if not is_out_of_memory(error) or most == 1:
                    raise
            give_back()
            most //= 2
        return found

    def write(self, root: Path, found: Mapping[str, Evaluation]) -> None:
        """Write what was found, and print it."""
        for label, member in self._members.items():
            named = self._hash(label)
            _put(member.folder, named, {**member.metrics, **found[label].metrics})
            _put(root, named, self._about(label))
        for one in self._foreign:
            one.write(root, found[one.spliced.label], config_entries(self.config))
        if self._saebench:
            self._write_saebench(root, found)
        for label, evaluation in found.items():
            print(shown_line(label, evaluation.metrics))

    def _write_saebench(self, root: Path, found: Mapping[str, Evaluation]) -> None:
        """A file for each SAE, of the name that SAEBench gives it."""
        for label, evaluation in found.items():
            sae, rows = self._saes[label].sae, self.court.rows
            assert rows is not None  # there is a language model
            asked = core_config(self.config, self._positions[label], rows, self._batch)
            place = root / names.EVALUATIONS / f"{self._hash(label)}-saebench"
            place.mkdir(parents=True, exist_ok=True)
            result = core_result((root.name, label), sae, told(root / label), evaluation, asked)
            write_json_atomic(place / f"{root.name}_{label.replace('/', '_')}_eval_results.json", result)

    def _hash(self, label: str) -> str:
        stamp = self.court.stamp + self._positions[label].encode() + self._moved(label).encode()
        return blake2b(stamp, digest_size=6).hexdigest()

    def _moved(self, label: str) -> str:
        """Where a member is judged, if not where it was trained; empty where it is."""
        own, now = self._members.get(label), self._saes[label]
        return "" if own is None or own.spliced.sites == now.sites else " -> ".join(now.sites)

    def _about(self, label: str) -> dict[str, Any]:
        entries, moved = config_entries(self.config), self._moved(label)
        about = {"data": entries["data"], "tokens": self.config.evaluation.tokens, "positions": self._positions[label]}
        return about | ({"site": moved} if moved else {})


def shown_line(label: str, metrics: Mapping[str, float | None]) -> str:
    """What is printed of an SAE that was judged."""
    return f"{label:<32}  " + "  ".join(f"{key} {_text(metrics.get(key))}" for key in SHOWN)


def _put(folder: Path, named: str, entries: dict[str, Any]) -> None:
    (folder / names.EVALUATIONS).mkdir(exist_ok=True)
    write_json_atomic(folder / names.EVALUATIONS / f"{named}.json", entries)


def _asked(arguments: Sequence[str]) -> Asked:
    words, options = split_options("eval", arguments, ("tokens", "sae", "hook", "format"))
    named = one_option("eval", options, "format", "")
    if named not in ("", "saebench"):
        raise ConfigError(f"eval: --format={named} is not saebench, the one besides our own")
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or not _allowed(key, ALLOWED):
            raise ConfigError(
                f"eval: {word} is none of data=, site=, data.KEY=, site.KEY=, evaluation.KEY=, model.device=,"
                " model.device_map=, and no option"
            )
    for option, key in (("tokens", "evaluation.tokens="), ("hook", "site.hook=")):
        if option in options and any(word.startswith(key) for word in words):
            raise ConfigError(f"eval: --{option} and {key} say the same; give one")
    if "tokens" in options:
        words = [*words, f"evaluation.tokens={_tokens(one_option('eval', options, 'tokens'))}"]
    if "hook" in options:
        words = [*words, f"site.hook={one_option('eval', options, 'hook')}"]
    sites = tuple(word for word in words if is_site(word))
    return Asked(tuple(word for word in words if not is_site(word)), sites, tuple(options.get("sae", ())), bool(named))


def is_site(word: str) -> bool:
    """Whether a word of a command line is a key of `site`, or chooses one of its files."""
    return _allowed(word.partition("=")[0], ("site",))


def _allowed(key: str, prefixes: Iterable[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def _tokens(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"eval: --tokens={text} is not a number") from None


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
