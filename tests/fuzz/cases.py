"""A seeded generator of what nobody means to give: command lines, experiments, sweep folders that are unfinished or
finished, data of text, ids, conversations and activations, model folders."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from omegaconf import OmegaConf

from sae_sweep.config.files import config_folder
from sae_sweep.config.reading import known_keys
from tests.fuzz.data_files import chat_file, data_file, stored_file
from tests.fuzz.junk import BYTES, PATHS, TEXTS, VALUES, changed, damaged
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
SIZES = (
    *("model.device=cpu", "data.context=8", "data.block_rows=8", "data.rows_per_forward=4", "sae.width=24", "name=x"),
    *("training.batch_size=16", "training.tokens=64", "evaluation.tokens=24", "tracking=none"),
)
SMALL = (*SIZES, "model=local", "model.path=model", "site.layer=1")
"""But for its SAEs a sweep of a second on the model that lies in `model`."""
SAES = tuple(sorted(file.stem for file in (config_folder() / "sae").glob("*.yaml")))
"""Recipes, those of papers, and controls."""
ANALYSES = {file.stem: tuple(OmegaConf.load(file)) for file in sorted((config_folder() / "analysis").glob("*.yaml"))}
"""With their keys."""
TRACKED = ("tracking.project", "tracking.entity", "tracking.group", "tracking.tags", "tracking.notes", "tracking.mode")
"""Keys that `upload` and `dashboard` take."""
TEMPLATES = (
    *("{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}",) * 4,
    *("", "{{ messages }}", "{% for", "{{ raise_exception('no') }}", "{{ messages[0].content | upper }}"),
)


@dataclass(frozen=True)
class Sound:
    """What is copied, and then damaged."""

    model: Path
    sweep: Path
    """Finished: a member of topk, gated and a control."""


@dataclass(frozen=True)
class Case:
    """A command line, and what is in the folder that it is given in."""

    kind: str
    arguments: tuple[str, ...]
    prepare: Callable[[Path, Sound], None]
    """(the folder, what is sound to copy)"""


def case(seed: int) -> Case:
    """The case of a seed."""
    random = Random(seed)
    kinds = (
        _command_line,
        _experiment,
        _sweep_folder,
        _finished_sweep,
        _data_file,
        _stored_file,
        _chats,
        _model_folder,
    )
    return random.choice(kinds)(random)


def _command_line(random: Random) -> Case:
    keys = (*known_keys(), *GROUPS, *HYDRA)
    words = [
        "dry_run=true",
        *random.choice(((), (f"sae={random.choice(SAES)}",), (f"sae={','.join(SAES)}", "sae.l0=8"))),
    ]
    for _ in range(random.randint(1, 3)):
        key = random.choice(keys)
        sign = random.choice(("", "", "", "", "+", "++", "~", "-"))
        words.append(f"{sign}{_misspelt(key, random)}={random.choice(VALUES)}")
    if random.random() < 0.2:
        words.append(random.choice(OPTIONS))
    if random.random() < 0.1:
        words = [
            random.choice(
                ("report", "status", "cancel", "eval", "work", "explain", "export", "show", "compare", "import")
            ),
            random.choice((*PATHS, *TEXTS)),
        ]
    random.shuffle(words)
    return Case("command line", tuple(words), lambda folder, sound: None)


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

    def prepare(folder: Path, sound: Sound) -> None:
        (folder / "mine/experiment").mkdir(parents=True)
        (folder / "mine/experiment/x.yaml").write_bytes(data)

    return Case("experiment", ("+experiment=x", "--config-dir", "mine", "dry_run=true"), prepare)


def _sweep_folder(random: Random) -> Case:
    names = [str(file.relative_to(OLD_SWEEP)) for file in sorted(OLD_SWEEP.rglob("*.json*"))]
    tasks = [f".state/tasks/a/{name}.json" for name in ("task", "job", "states")]
    name = random.choice((*names, *["sweep.json"] * 5, *tasks, ".state/lock", ".state/progress.json"))
    how, junk = random.random(), random.choice(BYTES)

    def prepare(folder: Path, sound: Sound) -> None:
        shutil.copytree(OLD_SWEEP, folder / "sweep")
        file = folder / "sweep" / name
        if how < 0.15:  # a folder in a file's place
            file.unlink(missing_ok=True)
            file.mkdir(parents=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        text = file.read_text() if how > 0.5 and file.exists() else ""
        file.write_bytes(changed(text, random) if text.startswith("{") and name.endswith(".json") else junk)

    return Case("sweep folder", (random.choice(("status", "report", "cancel", "show")), "sweep"), prepare)


def _finished_sweep(random: Random) -> Case:
    """A finished sweep of which a file is damaged, judged again, asked analyses, shown, reported or exported."""
    how, at, junk = random.random(), random.random(), random.choice(BYTES)

    def prepare(folder: Path, sound: Sound) -> None:
        shutil.copytree(sound.sweep, folder / "sweep")
        (folder / "model").symlink_to(sound.model)
        shutil.copy(sound.sweep.parent / "a.txt", folder)
        files = sorted(file for file in (folder / "sweep").rglob("*") if file.is_file())
        file = files[int(at * len(files))]
        if how < 0.3:  # nothing but what is asked may be wrong
            return
        if how < 0.45:
            file.unlink()
        elif how < 0.6 or file.suffix != ".json":
            file.write_bytes(junk if how < 0.75 else damaged(file.read_bytes(), random))
        else:
            file.write_bytes(changed(file.read_text(), random))

    return Case("finished sweep", _asked(random), prepare)


def _asked(random: Random) -> tuple[str, ...]:
    words = ["eval", "sweep"]
    other = random.random()
    if other < 0.25:
        return random.choice(
            (
                *(("report", "sweep"), ("show", "sweep"), ("status", "sweep"), ("compare", "sweep", "sweep")),
                ("upload", "sweep", f"{random.choice(TRACKED)}={random.choice(VALUES)}"),
                ("dashboard", "sweep", "tracking.mode=offline", f"{random.choice(TRACKED)}={random.choice(VALUES)}"),
                ("show", "sweep", "--format", random.choice((*PATHS, *TEXTS, "csv", "latex")), "--out", "out"),
            )
        )
    if other < 0.35:
        return (
            "export",
            "sweep/topk-l0_3-w24",
            "--format",
            random.choice(("saelens", "sparsify", "x")),
            "--out",
            "out",
        )
    if other < 0.65:
        name = random.choice(tuple(ANALYSES))
        words += ["--analysis", name]
        if random.random() < 0.6:
            words.append(f"analysis.{name}.{random.choice(ANALYSES[name])}={random.choice(VALUES)}")
        return tuple(words)
    keys = ("evaluation.tokens", "site.layer", "site.hook", "site", "data.path", "data", "data.context", "site.across")
    for _ in range(random.randint(0, 2)):
        words.append(f"{random.choice(keys)}={random.choice((*VALUES, '2', '8', 'mlp_out', 'a.txt'))}")
    return tuple(words)


def _data_file(random: Random) -> Case:
    name, write, keys = data_file(random)

    def prepare(folder: Path, sound: Sound) -> None:
        (folder / "model").symlink_to(sound.model)
        write(folder / name)

    return Case("data file", (*SMALL, *_sae(random), f"data.path={name}", *keys, *_planned(random, 0.3)), prepare)


def _stored_file(random: Random) -> Case:
    """Activations that exist already, of 6 numbers."""
    name, write, keys = stored_file(random)
    words = (*SIZES, *_sae(random), "data=activations", f"data.path={name}", *keys, *_planned(random, 0.3))
    return Case("stored activations", words, lambda folder, sound: write(folder / name))


def _chats(random: Random) -> Case:
    name, write, keys = chat_file(random)
    template = random.choice(TEMPLATES)

    def prepare(folder: Path, sound: Sound) -> None:
        shutil.copytree(sound.model, folder / "model")
        file = folder / "model" / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))
        write(folder / name)

    words = (*SMALL, *_sae(random), "data=text", f"data.path={name}", "data.chat=true", *keys)
    return Case("conversations", (*words, *_planned(random, 0.3)), prepare)


def _model_folder(random: Random) -> Case:
    damage = model_folder(random)

    def prepare(folder: Path, sound: Sound) -> None:
        shutil.copytree(sound.model, folder / "model")
        damage(folder / "model")
        (folder / "a.txt").write_text("Some words, and more of them.\n" * 40)

    words = (*SMALL, *_sae(random), "data=text", "data.path=a.txt", *_planned(random, 0.4))
    return Case("model folder", words, prepare)


def _sae(random: Random) -> tuple[str, ...]:
    return f"sae={random.choice(SAES)}", "sae.l0=3"


def _planned(random: Random, share: float) -> tuple[str, ...]:
    return ("dry_run=true",) if random.random() < share else ()
