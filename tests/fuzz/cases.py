"""A seeded generator of what nobody means to give: command lines, experiments, sweep folders, model folders."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from sae_sweep.config.files import config_folder
from sae_sweep.config.reading import known_keys

OLD_SWEEP = Path(__file__).parents[1] / "golden/old_sweep/stopped"
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80, "vocab_size": 99}
NUMBERS = ("0", "-1", "1", "3", "1e300", "1e-320", "-1e300", "nan", "inf", "9" * 400, "9" * 5000, "0.5", "2147483648")
PATHS = (
    "x" * 300,
    "/".join(["y" * 200] * 30),
    "'~nobody_here'",
    "'~nobody_here/x'",
    "/dev/null",
    "/dev/null/x",
    "''",
    ".",
    "/proc/1/x",
)
TEXTS = (
    "'a\x1b[31mb'",
    "'a\nb'",
    "\udcff",
    "é",
    "a b",
    "'",
    '"',
    "${seed}",
    "${nope}",
    "$",
    "\\",
    "x" * 5000,
    "=",
    "a=b",
)
NESTED = (
    "[" * 2000,
    "{a:" * 300 + "1" + "}" * 300,
    "[1,2]",
    "{a: 1}",
    "1,2",
    "choice(1,2)",
    "range(0,1e9)",
    "[]",
    "{}",
)
VALUES = (*NUMBERS, *PATHS, *TEXTS, *NESTED, "null", "true", "interval(0,1)", "glob(*)", "tag(x,1)")
OPTIONS = (*("--cfg", "--cfg=job", "--resolve", "-sc", "--info", "-m", "--multirun", "-x", "--package", "-c", "--run"),)
HYDRA = (
    *("hydra/sweeper", "hydra/launcher", "hydra.sweeper", "hydra.launcher", "hydra.mode", "hydra.searchpath"),
    *("hydra.sweeper.grids", "hydra.sweeper.params", "hydra.job.chdir", "hydra.run.dir", "hydra.help", "hydra"),
)
GROUPS = ("model", "site", "data", "sae", "training", "evaluation", "tracking", "launcher", "experiment", "analysis")
JSON_VALUES: tuple[Any, ...] = (None, True, 0, -1, 1e400, 10**400, "", "x\x1b", "\ud800", [], {}, [[]], {"a": []}, "9")
BYTES = (b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"\x00" * 99, b'"\\ud800"')
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


@dataclass(frozen=True)
class Case:
    """A command line, and what is in the folder that it is given in."""

    arguments: tuple[str, ...]
    prepare: Callable[[Path], None]


def case(seed: int) -> Case:
    """The case of a seed."""
    random = Random(seed)
    return random.choice((_command_line, _experiment, _sweep_folder, _model_folder))(random)


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
            random.choice(("report", "status", "cancel", "eval", "work", "explain")),
            random.choice((*PATHS, *TEXTS)),
        ]
    random.shuffle(words)
    return Case(tuple(words), lambda folder: None)


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

    def prepare(folder: Path) -> None:
        (folder / "mine/experiment").mkdir(parents=True)
        (folder / "mine/experiment/x.yaml").write_bytes(data)

    return Case(("+experiment=x", "--config-dir", "mine", "dry_run=true"), prepare)


def _sweep_folder(random: Random) -> Case:
    names = [str(file.relative_to(OLD_SWEEP)) for file in sorted(OLD_SWEEP.rglob("*.json*"))]
    tasks = [f".state/tasks/a/{name}.json" for name in ("task", "job", "states")]
    name = random.choice((*names, *["sweep.json"] * 5, *tasks, ".state/lock", ".state/progress.json"))
    how, junk = random.random(), random.choice(BYTES)

    def prepare(folder: Path) -> None:
        shutil.copytree(OLD_SWEEP, folder / "sweep")
        file = folder / "sweep" / name
        if how < 0.15:  # a folder in a file's place
            file.unlink(missing_ok=True)
            file.mkdir(parents=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        text = file.read_text() if how > 0.5 and file.exists() else ""
        file.write_bytes(_changed(text, random) if text.startswith("{") and name.endswith(".json") else junk)

    return Case((random.choice(("status", "report", "cancel")), "sweep"), prepare)


def _model_folder(random: Random) -> Case:
    whole, junk = random.random() < 0.8, random.choice(BYTES)

    def prepare(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model/config.json").write_bytes(_changed(json.dumps(SIZES), random) if whole else junk)
        (folder / "model/model.safetensors").write_bytes(random.choice(BYTES))
        (folder / "a.txt").write_text("text")

    asked = ("model=local", "model.path=model", "data=text", "data.path=a.txt", "site.layer=1", "sae.width=64")
    return Case((*asked, "dry_run=true"), prepare)


def _changed(text: str, random: Random) -> bytes:
    """A JSON object with one entry, at any depth, lost or replaced."""
    entries = at = json.loads(text)
    while True:
        key = random.choice(list(at))
        if not isinstance(at[key], dict) or not at[key] or random.random() < 0.2:
            break
        at = at[key]
    if random.random() < 0.2:
        del at[key]
    else:
        at[key] = random.choice(JSON_VALUES)
    return json.dumps(entries).encode()
