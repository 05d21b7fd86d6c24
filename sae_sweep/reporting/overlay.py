"""Several sweeps as one: their members share cells where they may be compared."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sae_sweep.reporting.points import SweepRecord, read_sweep, tell_apart


def overlaid(folders: Sequence[Path]) -> SweepRecord:
    """What the folders of sweeps say together; of several, members are called `sweep/member`.

    Sweeps of one name are told apart by their folders. Raises ConfigError as `read_sweep` does.
    """
    records = [read_sweep(folder) for folder in folders]
    if len(records) == 1:
        return records[0]
    shared = Counter(record.name for record in records)
    names = [
        record.name if shared[record.name] == 1 else str(folder)
        for record, folder in zip(records, folders, strict=True)
    ]
    joined = SweepRecord(" and ".join(names), [], [], [])
    for name, record, folder in zip(names, records, folders, strict=True):
        joined.roots[name] = folder
        _join(joined, name, record)
    tell_apart(joined.points, joined.configs)
    return joined


def _join(joined: SweepRecord, name: str, record: SweepRecord) -> None:
    def renamed(label: str) -> str:
        return f"{name}/{label}"

    apart = ("member", "twin")
    joined.points.extend({**point, **{key: renamed(point[key]) for key in apart}} for point in record.points)
    joined.unfinished.extend({**member, "member": renamed(member["member"])} for member in record.unfinished)
    joined.notes.extend(renamed(note) for note in record.notes)
    joined.configs.update({renamed(label): config for label, config in record.configs.items()})
    joined.folders.update({renamed(label): folder for label, folder in record.folders.items()})
    joined.sweeps.update({renamed(point["member"]): name for point in record.points})
