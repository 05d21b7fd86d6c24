"""A seeded generator of what nobody means to give: command lines, experiments, sweep folders, data, model folders."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from sae_sweep.config.files import config_folder
from sae_sweep.config.reading import known_keys
from tests.fuzz.data_files import data_file
from tests.fuzz.junk import BYTES, PATHS, TEXTS, VALUES, changed
from tests.fuzz.model_folders import model_folder

OLD_SWEEP = Path(__file__).parents[1] / "golden/old_sweep/stopped"
OPTIONS = (*("--cfg", "--cfg=job", "--resolve", "-sc", "--info", "-m", "--multirun", "-x", "--package", "-c", "--run"),)
HYDRA = (
    *("hydra/sweeper", "hydra/launcher", "hydra.sweeper", "hydra.launcher", "hydra.mode", "hydra.searchpath"),
    *("hydra.sweeper.grids", "hydra.sweeper.params", "hydra.job.chdir", "hydra.run.dir", "hydra.help", "hydra"),
)
GROUPS = ("model", "site", "data", "sae", "training", "evaluation", "tracking", "launcher", "experiment", "analysis")
LINES = (
    *(
        "seed: &a [*a]",
        "a: &a [x, x]\nb: &b [*a, *a]",
        "seed: !!python/name:os.system",
        "defaults: 5",
        "defaults: [[1]]",
    ),
    *(
        "defaults:\n  - override /sae: nope",
        "\tseed: 1",
        "seed: [",
        "? [1]: 2",
        "null: 1",
        "sae: 3",
        "--- 1",
        "seed: .inf",
    ),
)
SMALL = (
    *("model=local", "model.path=model", "model.device=cpu", "data.context=8", "data.block_rows=8", "site.layer=1"),
    *("data.rows_per_forward=4", "sae=topk", "sae.k=3", "sae.width=24", "training.batch_size=16", "name=x"),
    *("training.tokens=64", "evaluation.tokens=24", "tracking=none"),
)
"""A sweep of a second on the model that lies in `model`."""


@dataclass(frozen=True)
class Case:
    """A command line, and what is in the folder that it is given in."""

    kind: str
    arguments: tuple[str, ...]
    prepare: Callable[[Path, Path], None]
    """(the folder, that of a sound model to copy)"""


def case(seed: int) -> Case:
    """The case of a seed."""
    random = Random(seed)
    return random.choice((_command_line, _experiment, _sweep_folder, _data_file, _model_folder))(random)


def _command_line(random: Random) -> Case:
    keys = (*known_keys(), *GROUPS, *HYDRA)
    words = ["dry_run=true"]
    for _ in range(random.randint(1, 3)):
        key = random.choice(keys)
        sign = random.choice(("", "", "", "", "+", "++", "~", "-"))
        words.append(f"{sign}{_misspelt(key, random)}={random.choice(VALUES)}")
    if random.random() < 0.2:
        words.append(random.choice(OPTIONS))
    if random.random() < 0.1:
        words = [
            random.choice(("report", "status", "cancel", "eval", "work", "explain", "export")),
            random.choice((*PATHS, *TEXTS)),
        ]
    random.shuffle(words)
    return Case("command line", tuple(words), lambda folder, model: None)


def _misspelt(key: str, random: Random) -> str:
    if random.random() < 0.85:
        return key
    at = random.randrange(len(key))
    return key[:at] + random.choice(("", ".", "x", "\x1b", "é", "=")) + key[at + 1 :]


def _experiment(random: Random) -> Case:
    file = random.choice(sorted((config_folder() / "experiment").glob("*.yaml")))
    lines = file.read_text().split("\n")
    for _ in range(random.randint(1, 3)):
        at = random.randrange(1, len(lines))
        key, colon, _ = lines[at].partition(":")
        wrong = (f"{key}{colon} {random.choice(VALUES)}", random.choice(LINES), "  " + lines[at], lines[at] * 2)
        lines[at] = random.choice(wrong)
    data = "\n".join(lines).encode(random.choice(("utf-8", "utf-8", "utf-8", "utf-16")), "surrogatepass")

    def prepare(folder: Path, model: Path) -> None:
        (folder / "mine/experiment").mkdir(parents=True)
        (folder / "mine/experiment/x.yaml").write_bytes(data)

    return Case("experiment", ("+experiment=x", "--config-dir", "mine", "dry_run=true"), prepare)


def _sweep_folder(random: Random) -> Case:
    names = [str(file.relative_to(OLD_SWEEP)) for file in sorted(OLD_SWEEP.rglob("*.json*"))]
    tasks = [f".state/tasks/a/{name}.json" for name in ("task", "job", "states")]
    name = random.choice((*names, *["sweep.json"] * 5, *tasks, ".state/lock", ".state/progress.json"))
    how, junk = random.random(), random.choice(BYTES)

    def prepare(folder: Path, model: Path) -> None:
        shutil.copytree(OLD_SWEEP, folder / "sweep")
        file = folder / "sweep" / name
        if how < 0.15:  # a folder in a file's place
            file.unlink(missing_ok=True)
            file.mkdir(parents=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        text = file.read_text() if how > 0.5 and file.exists() else ""
        file.write_bytes(changed(text, random) if text.startswith("{") and name.endswith(".json") else junk)

    return Case("sweep folder", (random.choice(("status", "report", "cancel")), "sweep"), prepare)


def _data_file(random: Random) -> Case:
    name, write, keys = data_file(random)

    def prepare(folder: Path, model: Path) -> None:
        (folder / "model").symlink_to(model)
        write(folder / name)

    return Case("data file", (*SMALL, f"data.path={name}", *keys, *_planned(random, 0.3)), prepare)


def _model_folder(random: Random) -> Case:
    damage = model_folder(random)

    def prepare(folder: Path, model: Path) -> None:
        shutil.copytree(model, folder / "model")
        damage(folder / "model")
        (folder / "a.txt").write_text("Some words, and more of them.\n" * 40)

    return Case("model folder", (*SMALL, "data=text", "data.path=a.txt", *_planned(random, 0.4)), prepare)


def _planned(random: Random, share: float) -> tuple[str, ...]:
    return ("dry_run=true",) if random.random() < share else ()
