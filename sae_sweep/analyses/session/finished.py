"""A finished member of a sweep folder, read when it is asked for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae_sweep.config.files import other_site, saved_config
from sae_sweep.config.reading import flat_entries
from sae_sweep.data.kinds import modelless_kind
from sae_sweep.errors import ConfigError, one_line
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.evaluation.places import check_widths, placed
from sae_sweep.folder import names
from sae_sweep.folder.record import read_record
from sae_sweep.host.json_files import read_object
from sae_sweep.interop import load_sae
from sae_sweep.plan.fingerprints import MODEL_KEYS, check_same
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.plan.members import Member
from sae_sweep.saes.inference import InferenceSae

SILENT = -9.5
"""log10 of a frequency below which a latent never fired: files hold log10(frequency + 1e-10)."""


@dataclass(frozen=True)
class FinishedSae:
    """One finished member: its name, its folder, and what it was asked to be."""

    label: str
    folder: Path
    entries: dict[str, Any]
    """Its config without the runtime keys, by dotted key."""
    content: Mapping[str, Any] = field(default_factory=dict)
    """Fingerprints of what it was trained on."""

    @cached_property
    def sae(self) -> InferenceSae:
        """The SAE on raw activations, on the CPU. Raises ConfigError where its files are damaged."""
        try:
            return load_sae(self.folder)
        except (ValueError, OSError) as error:
            raise ConfigError(f"{self.folder}: {one_line(error)}; train it again") from error

    @cached_property
    def frequency_F(self) -> Tensor:
        """[F] float64: the share of held-out tokens that each latent fires on. Raises ConfigError as `sae` does."""
        file = self.folder / names.SPARSITY
        try:
            log_F = load_file(file)["sparsity"].double()
        except (SafetensorError, OSError, KeyError) as error:
            raise ConfigError(f"{file} cannot be read ({one_line(error)}); train it again") from error
        return torch.where(log_F > SILENT, 10**log_F, 0.0)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Its metrics.json. Raises ConfigError where that is damaged."""
        try:
            return read_object(self.folder / names.METRICS)
        except (ValueError, OSError) as error:
            raise ConfigError(f"{self.folder / names.METRICS} cannot be read ({error}); train it again") from error

    @property
    def alive_F(self) -> Tensor:
        """[F] bool: the latents that fired on the held-out tokens."""
        return self.frequency_F > 0

    @cached_property
    def member(self) -> Member:
        """The member as it was planned. Raises ConfigError where its config.yaml is of no use."""
        return plan_sweep([saved_config(self.folder / names.CONFIG)]).members[0]

    def check_content(self, *, data: bool = False) -> None:
        """Raises ConfigError where the model, or the data too, is no longer what it was trained on."""
        kept = {key: about for key, about in self.content.items() if data or key in MODEL_KEYS}
        check_same(kept, self.member.config, self.label)

    @property
    def sites(self) -> tuple[Any, ...]:
        """What it reads and gives, as its config says: equal for members whose latents can be compared."""
        return tuple(value for key, value in self.entries.items() if key.startswith(("model.", "site.")))

    @property
    def knobs(self) -> tuple[str, ...]:
        """The keys that set its sparsity."""
        return "sae.l0", f"sae.{self.member.config.sae.knob()}"

    def alike(self, other: "FinishedSae", *but: str) -> bool:
        """Whether another is the same but for the values of these keys."""
        mine, theirs = ({key: value for key, value in one.entries.items() if key not in but} for one in (self, other))
        return mine == theirs

    @property
    def spliced(self) -> SplicedSae:
        """The SAE at its site."""
        return self._at(self.member)

    def at(self, asked: Sequence[str]) -> SplicedSae:
        """The SAE at another site, in the command line's words. Raises ConfigError where it does not fit it."""
        if modelless_kind(self.member.config.data.kind) is not None:
            raise ConfigError(f"{asked[0]}: {self.label} is of data.kind={self.member.config.data.kind}, without sites")
        moved = plan_sweep([other_site(self.member.config, asked)]).members[0]
        one = self._at(moved)
        check_widths(one, moved.widths, f"{', '.join(asked)} cannot be")
        return one

    def _at(self, member: Member) -> SplicedSae:
        one = placed(self.label, self.sae, member.site, member.watched)
        return replace(one, steps=member.schedule.total_steps, batch_size=member.config.training.batch_size)


def finished_saes(root: Path, asked: Sequence[str] = ()) -> list[FinishedSae]:
    """The finished members of a sweep folder, or those that are asked for. Raises ConfigError where it has none, and
    for one that is asked for and is not finished."""
    members = read_record(root)["members"]
    for label in asked:
        if label not in members:
            raise ConfigError(f"--member={label}: {root} has no such member; it has {', '.join(members)}")
        if members[label]["state"] != "finished":
            raise ConfigError(f"--member={label}: it is {members[label]['state']}; train it to its end first")
    found = [
        FinishedSae(label, root / label, flat_entries(entry["config"]), entry.get("content") or {})
        for label, entry in members.items()
        if entry["state"] == "finished" and (not asked or label in asked)
    ]
    if not found:
        raise ConfigError(f"eval: {root} has no finished member; the command that trains it goes on with it")
    return found


def check_model(finished: Iterable[FinishedSae]) -> None:
    """Raises ConfigError where one of these members is of activations that have no language model to run."""
    for one in finished:
        made = modelless_kind(one.member.config.data.kind)
        if made is not None:
            raise ConfigError(f"eval: {made.NOUN} have no language model, which this asks for; take another sweep")
