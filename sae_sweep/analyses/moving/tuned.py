"""Members trained on at other places, by the trainer that they were made by: `init_from`, and a few tokens.

Each begins from a copy of the member whose card names the other place, which is what `init_from` compares. lr falls
from a share of the member's own to 0, and nothing warms up. A process that was stopped goes on from its checkpoint.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from sae_sweep.analyses.moving.targets import KEY, Target
from sae_sweep.analyses.session.told import Told
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.folder import names
from sae_sweep.folder.files import write_json_atomic
from sae_sweep.folder.sweep import SweepFolder, sweep_root
from sae_sweep.host.json_files import read_object
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.plan.members import member_identity
from sae_sweep.tracking.progress import Progress
from sae_sweep.training.run.opening import open_group, passes

CHECKPOINTS = 4
"""On the way: so much work a kill may cost."""
COPIED = (names.WEIGHTS, names.LOOKUP, names.METRICS)


def can_be_tuned(target: Target) -> bool:
    """Whether anything of its member is trained."""
    return not target.member.member.config.sae.control


def tuned(folder: Path, targets: Sequence[Target], tokens: float, lr: float, told: Told) -> dict[str, Path]:
    """The folders of members trained on, by the targets' labels; one that diverged has none. All are judged on the
    held-out rows there. Raises ConfigError where they cannot be trained."""
    configs = {target.label: _config(folder, number, target, tokens, lr) for number, target in enumerate(targets)}
    try:
        plan = plan_sweep(list(configs.values()))
    except ConfigError as error:
        raise ConfigError(f"{KEY}: a few tokens more: {error}") from error
    sweep = SweepFolder(sweep_root(next(iter(configs.values()))))
    plan = sweep.named(plan)
    left = plan.without(sweep.finished(plan)).groups
    for group in left:
        told("transfer: a few tokens more", 0, int(tokens))
        for one in passes(group):
            run = open_group(one.group, one.waves, _Telling(told, int(tokens)))
            sweep.begin(plan)
            results = run.run(sweep)
            sweep.mark([label for label, result in results.items() if result.metrics is not None], "finished", None)
    labels = {member.identity: member.label for member in plan.members}
    folders = {label: sweep.member_folder(labels[member_identity(config)]) for label, config in configs.items()}
    return {label: place for label, place in folders.items() if (place / names.METRICS).is_file()}


class _Telling(Progress):
    """The progress of a group, as an analysis tells of its own."""

    def __init__(self, told: Told, tokens: int) -> None:
        super().__init__("", Console(quiet=True))
        self._to, self._tokens = told, tokens

    def update(self, steps: Mapping[str, int], members: Mapping[str, tuple[float, float]]) -> None:
        super().update(steps, members)
        self._to("transfer: a few tokens more", round(self.tokens), self._tokens)

    def judging(self, share: float, members: int, *, last: bool = True) -> None:
        super().judging(share, members, last=last)
        self._to(f"transfer: judging {members} trained on", round(100 * share), 100)


def _config(folder: Path, number: int, target: Target, tokens: float, lr: float) -> MemberConfig:
    """That of a member trained on, which begins from a copy of its own."""
    own, schedule = target.config, target.member.member.schedule
    origin = _copied(folder / "origins" / str(number), target)
    training = replace(
        own.training,
        tokens=tokens,
        lr=lr * schedule.lr,
        lr_warmup_steps=0,
        lr_decay_fraction=1.0,
        milestones=None,
        checkpoint_tokens=tokens / CHECKPOINTS,
        sparsity_warmup_steps=0,
    )
    return replace(
        own,
        name="tuned",
        output_dir=str(folder),
        init_from=str(origin),
        training=training,
        evaluation=replace(own.evaluation, every=None),
        tracking=replace(own.tracking, mode="none", artifacts=False, workspace=False),
        launcher=replace(own.launcher, devices=1, hosts=1),
    )


def _copied(place: Path, target: Target) -> Path:
    """The member's folder with a card of the other place; whole, or not there."""
    if not (place / names.CARD).is_file():
        place.mkdir(parents=True, exist_ok=True)
        for name in COPIED:
            if (target.member.folder / name).is_file():
                shutil.copyfile(target.member.folder / name, place / name)
        card = read_object(target.member.folder / names.CARD)
        metadata = {**card["metadata"], "hook_name": target.hook}
        write_json_atomic(place / names.CARD, {**card, "metadata": metadata})
    return place
