"""From overrides to an opened group, the way the command does it, without the command."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sae_sweep.config.files import config_of
from sae_sweep.config.schema import MemberConfig
from sae_sweep.folder.sweep import SweepFolder, sweep_root
from sae_sweep.plan.groups import Group, plan_sweep
from sae_sweep.plan.members import member_identity


@dataclass(frozen=True)
class Planned:
    """One group whose sweep folder has been begun."""

    configs: Mapping[str, MemberConfig]
    group: Group
    folder: SweepFolder

    def label(self, name: str) -> str:
        labels = {member.identity: member.label for member in self.group.members}
        return labels[member_identity(self.configs[name])]

    def member_folder(self, name: str) -> Path:
        return self.folder.member_folder(self.label(name))


def planned(shared: Sequence[str], members: Mapping[str, Sequence[str]]) -> Planned:
    """The one group of some members, by name; all of them have the shared overrides."""
    configs = {name: config_of([*shared, *own]) for name, own in members.items()}
    plan = plan_sweep(list(configs.values()))
    folder = SweepFolder(sweep_root(next(iter(configs.values()))))
    folder.begin(plan)
    (group,) = plan.groups
    return Planned(configs, group, folder)


def small(output: Path, model: Path, text: Path) -> list[str]:
    """Overrides for a run of a second: this model, this text, rows of 16 tokens, blocks of 32 rows."""
    return [
        *("name=small", f"output_dir={output}", "model=local", f"model.path={model}", "model.device=cpu"),
        *("data=text", f"data.path={text}", "data.context=16", "data.block_rows=32", "data.rows_per_forward=16"),
        *("sae.width=40", "evaluation.tokens=640", "tracking=none"),
    ]
