"""A finished member of a sweep folder, read when it is asked for."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor

from sae_sweep.config.reading import flat_entries, member_config
from sae_sweep.data.kinds import synthetic_kind
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.folder import names
from sae_sweep.folder.record import read_record
from sae_sweep.interop import load_sae
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

    @cached_property
    def sae(self) -> InferenceSae:
        """The SAE on raw activations, on the CPU. Raises ValueError where its files are damaged."""
        return load_sae(self.folder)

    @cached_property
    def alive_F(self) -> Tensor:
        """[F] bool: the latents that fired on the held-out tokens."""
        return load_file(self.folder / names.SPARSITY)["sparsity"] > SILENT

    @cached_property
    def member(self) -> Member:
        """The member as it was planned. Raises ConfigError where its config.yaml is of no use."""
        config = OmegaConf.load(self.folder / names.CONFIG)
        return plan_sweep([member_config(config)]).members[0]  # type: ignore[arg-type]  # a list is no config

    @property
    def sites(self) -> tuple[Any, ...]:
        """What it reads and gives, as its config says: equal for members whose latents can be compared."""
        return tuple(value for key, value in self.entries.items() if key.startswith(("model.", "site.")))

    @property
    def spliced(self) -> SplicedSae:
        """The SAE at its site."""
        site = self.member.site
        reads, beside = site.hook if site.output else None, tuple(other.hook for other in site.beside)
        return SplicedSae(
            self.label, site.written.hook, self.sae, reads=reads, beside=beside, watched=self.member.watched
        )


def finished_saes(root: Path) -> list[FinishedSae]:
    """The finished members of a sweep folder. Raises ConfigError where it has none."""
    members = read_record(root)["members"]
    found = [
        FinishedSae(label, root / label, flat_entries(entry["config"]))
        for label, entry in members.items()
        if entry["state"] == "finished"
    ]
    if not found:
        raise ConfigError(f"eval: {root} has no finished member; the command that trains it goes on with it")
    return found


def check_model(finished: Iterable[FinishedSae]) -> None:
    """Raises ConfigError where one of these members is of activations that have no language model to run."""
    for one in finished:
        made = synthetic_kind(one.member.config.data.kind)
        if made is not None:
            raise ConfigError(f"eval: {made.NOUN} have no language model, which this asks for; take another sweep")
