"""Write the tables of docs/: every config key from the comments in configs/, every metric from the one table of them.

python scripts/write_tables.py
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sae_sweep.evaluation.metrics import METRICS

ROOT = Path(__file__).parents[1]
MARK = "<!-- scripts/write_tables.py writes what follows -->\n"
GROUPS = {
    "": "config.yaml",
    "model": "model/local.yaml",
    "site": "site/resid_post.yaml",
    "data": "data/demo.yaml",
    "data.toy": "data/toy.yaml",
    "sae": "every_sae.yaml",
    "training": "training/default.yaml",
    "evaluation": "evaluation/default.yaml",
    "tracking": "tracking/default.yaml",
    "launcher": "launcher/default.yaml",
}
"""Each group's file that has all its keys. What architectures add is in `sae/`."""


def keys_of(file: Path, group: str) -> Iterator[tuple[str, str, str]]:
    """Dotted key, default and meaning of each key of a yaml that is of this group."""
    indent = "  " if group == "data.toy" else ""
    for line in file.read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(rf"{indent}([a-z]\w*): (.+?)(?: # (.+))?", line)
        if found and found[1] != "cluster":
            yield f"{group}.{found[1]}".lstrip("."), found[2], found[3] or ""


def table(head: str, rows: Iterable[Sequence[str]]) -> str:
    """The rows under the words of the head."""
    words = head.split()
    lines = [words, ["---"] * len(words), *([cell.replace("|", "&#124;") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def own_keys(configs: Path) -> Iterator[tuple[str, str, str]]:
    """What single architectures add, or begin differently: each key once, with those that have it."""
    files: dict[tuple[str, str], dict[str, str]] = {}
    for file in sorted((configs / "sae").glob("*.yaml")):
        for key, default, meaning in keys_of(file, "sae"):
            if key != "sae.architecture":
                files.setdefault((key, meaning), {})[file.stem] = default
    for (key, meaning), defaults in sorted(files.items()):
        values = " or ".join(dict.fromkeys(defaults.values()))
        yield key, values, f"{', '.join(f'`{name}`' for name in defaults)}: {meaning}"


def sections(groups: Iterable[tuple[str, Iterator[tuple[str, str, str]]]]) -> str:
    """A table of keys for each title."""
    return "\n".join(f"### {title}\n\n{table('key default meaning', map(_quoted, rows))}" for title, rows in groups)


def hydra() -> str:
    """The tables of docs/cluster.md."""
    folder = ROOT / "configs" / "hydra"
    names = ("launcher/slurm", "launcher/ray", "launcher/gpus", "sweeper/optuna")
    groups = [
        (f"`hydra/{name.replace('/', '=')}`", keys_of(folder / f"{name}.yaml", "hydra." + name.split("/")[0]))
        for name in names
    ]
    return sections(groups)


def experiments() -> str:
    """Each experiment that ships, with what its file says of it."""
    rows = []
    for file in sorted((ROOT / "configs" / "experiment").glob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        rows.append((f"`{file.stem}`", " ".join(line.removeprefix("# ") for line in lines[1:] if line[:2] == "# ")))
    return table("experiment what", rows)


def keys() -> str:
    """The tables of docs/configs.md."""
    configs = ROOT / "configs"
    titles = {"": "Top level", "data.toy": "`data.toy`, of `data=toy`"}
    groups = [(titles.get(group, f"`{group}`"), keys_of(configs / file, group)) for group, file in GROUPS.items()]
    groups.append(("`sae`, by architecture", own_keys(configs)))
    return sections(groups)


def metrics() -> str:
    """The table of docs/metrics.md."""
    better = {"higher": "higher", "lower": "lower", "one": "1", None: ""}
    rows = [(f"`{m.key}`", m.name, m.unit, better[m.better], m.definition) for m in METRICS.values()]
    return table("key name unit better meaning", rows)


def _quoted(row: tuple[str, str, str]) -> tuple[str, str, str]:
    return f"`{row[0]}`", f"`{row[1]}`", row[2]


def models() -> str:
    """The table of docs/models.md: what tests/model/test_families.py has found."""
    found = json.loads((ROOT / "tests" / "evidence" / "models.json").read_text(encoding="utf-8"))
    kinds = list(next(iter(found.values()))["sites"])
    rows = []
    for name, each in found.items():
        told = [*(each["sites"][kind] for kind in kinds), each["documents"]]
        rows.append((name, f"`{each['class']}`", *(_cell(one) for one in told)))
    return table(f"model class {' '.join(kinds)} documents", rows)


def _cell(told: str) -> str:
    return "✓" if told == "equal" else "some" if told.startswith("equal") else ""


PAGES = {"configs": keys, "models": models, "cluster": hydra, "metrics": metrics, "experiments": experiments}


def page(name: str) -> str:
    """The page as it should be."""
    return f"{(ROOT / 'docs' / f'{name}.md').read_text(encoding='utf-8').partition(MARK)[0]}{MARK}\n{PAGES[name]()}"


if __name__ == "__main__":
    for name in PAGES:
        (ROOT / "docs" / f"{name}.md").write_text(page(name), encoding="utf-8")
