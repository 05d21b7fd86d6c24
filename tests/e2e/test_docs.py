"""Every command of the README and of docs/, run as it stands but for the budgets: minutes become seconds.

`bash` blocks run in the order of their page, each page in a folder of its own; `python` blocks run after them.
Experiments, clusters and several devices are planned, not trained: other tests train each kind.
"""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in (README, *sorted((ROOT / "docs").glob("*.md")))}
EVERYTHING = "\n".join([*PAGES.values(), (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")])
BUDGET = (
    *("training.tokens=1e3", "training.batch_size=256", "evaluation.tokens=300", "tracking=none"),
    *("data.block_rows=32", "data.context=16"),
)
LOOKS = ("report", "show", "compare", "status", "eval", "explain", "export", "import", "--help", "--cfg")
TRAINED = ("sae-sweep +experiment=e2e",)
"""The experiments whose members a later command of the page begins from."""


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGES[page], re.DOTALL)


def commands(page: str) -> list[str]:
    return [line for block in blocks(page, "bash") for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def stands_for(llama_folder, gpt2_folder, neox_folder, text_file, tmp_path_factory) -> dict[str, str]:
    """What the pages' placeholders, and what is on the hub, stand for here."""
    folder = tmp_path_factory.mktemp("stands_for")
    np.savez(folder / "tokens.npz", tokens=np.arange(20_000) % 300)
    np.save(folder / "activations.npy", np.random.default_rng(0).standard_normal((4000, 16), dtype=np.float32))
    for yaml in blocks("configs", "yaml"):
        file = folder / yaml.splitlines()[1].removeprefix("# ")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml, encoding="utf-8")
    shutil.copytree(llama_folder, folder / "chatty")
    (folder / "chatty" / "chat_template.jinja").write_text(
        "{% for m in messages %}<bos>{{ m.role }}: {{ m.content }}<eos>{% endfor %}"
    )
    chat = {
        "messages": [{"role": "user", "content": "add 2 and 3"}, {"role": "assistant", "content": "that is 5, " * 40}]
    }
    (folder / "chats.jsonl").write_text("\n".join([json.dumps(chat)] * 400))
    (folder / "more.jsonl").write_text("\n".join([json.dumps({"text": "more of it, " * 40})] * 60))
    return {
        "CHAT_MODEL": str(folder / "chatty"),
        "CHATS_FILE": str(folder / "chats.jsonl"),
        "GPT2_FOLDER": str(gpt2_folder),
        "MODEL_FOLDER": str(llama_folder),
        "TEXT_FILE": str(text_file),
        "JSONL_FILE": str(folder / "more.jsonl"),
        "TOKENS_FILE": str(folder / "tokens.npz"),
        "ACTIVATIONS_FILE": str(folder / "activations.npy"),
        "data=hub data.path=DATASET": f"data=text data.path={text_file}",
        "model=pythia-70m": f"model=pythia-70m model.path={neox_folder}",
        "my_configs": str(folder / "my_configs"),
    }


def arguments_of(command: str, stands_for: dict[str, str]) -> list[str]:
    """The words after `sae-sweep`, and a small budget where something is trained."""
    filled = re.sub("|".join(map(re.escape, stands_for)), lambda name: stands_for[name[0]], command)
    program, _, rest = filled.partition(" ")
    words = shlex.split(rest)
    if program == "torchrun":
        words = words[words.index("sae_sweep.cli") + 1 :]
    else:
        assert program == "sae-sweep"
    if words[0] in LOOKS or "dry_run=true" in words:
        return words
    planned = re.search(r"\+experiment=|hydra/launcher=|launcher\.devices=", command) and command not in TRAINED
    return [*words, "dry_run=true"] if planned else [*words, *BUDGET]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_works_in_the_order_of_the_page(page, sae_sweep, stands_for, tmp_path, monkeypatch):
    for command in commands(page):
        done = sae_sweep(*arguments_of(command, stands_for))
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(block, names)


def test_the_readme_trains_plans_and_reports():
    said = " ".join(commands("README"))
    assert len(commands("README")) >= 5
    assert "dry_run=true" in said
    assert "sae-sweep report" in said


def test_the_readme_is_short_and_no_prose_is_wide():
    assert len(PAGES["README"].splitlines()) <= 150
    assert [line for line in PAGES["README"].splitlines() if len(line) > 120] == []
    rows = ("|", "sae-sweep ", "<!--")
    assert [line for line in EVERYTHING.splitlines() if len(line) > 120 and not line.startswith(rows)] == []


def test_make_demo_is_the_demo_experiment(sae_sweep):
    recipe = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = next(line for line in recipe.splitlines() if "sae-sweep" in line)
    done = sae_sweep(*command.split()[1:], "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("outputs/demo: 20 members")


def test_make_targets_exist():
    targets = sorted(set(re.findall(r"(?:`|\$ )make ([\w.-]+)", EVERYTHING)))
    assert len(targets) >= 6
    subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, check=True)


def test_files_named_exist():
    named = set(re.findall(r"`((?:[\w-]+/)+(?:[\w-]+\.(?:py|md|json|yaml|sh))?|\w+\.py)`", EVERYTHING))
    named |= set(re.findall(r"\]\(([^:)]+)\)", EVERYTHING))
    assert len(named) > 60
    folders = (ROOT, ROOT / "sae_sweep", ROOT / "docs")
    ours = [
        name
        for name in named
        if not name.startswith(("outputs/", "tensorboard/", "milestones/", "analyses/", "DIR/", "mine/"))
    ]
    assert [name for name in ours if not any((folder / name).exists() for folder in folders)] == []


def test_config_keys_named_exist():
    from sae_sweep.config.reading import known_keys

    prose = re.sub(r"```py.*?```", "", EVERYTHING, flags=re.DOTALL)
    keys = set(re.findall(r"\b((?:model|site|data|sae|training|evaluation|tracking)\.[a-z_0-9]+)\b", prose))
    of_files = {key for key in keys if key.endswith((".py", ".json", ".safetensors", ".md", ".pt"))}
    assert keys - set(known_keys()) - of_files - {"data.toy"} == set()


@pytest.mark.parametrize("name", ["cluster", "configs", "experiments", "metrics", "models"])
def test_tables_are_up_to_date(name):
    from scripts.write_tables import page

    assert PAGES[name] == page(name), "run `python scripts/write_tables.py`"


def test_every_config_key_is_in_its_table():
    from sae_sweep.config.reading import known_keys

    told = set(re.findall(r"^\| `([\w.]+)` ", PAGES["configs"].partition("## Every key")[2], re.MULTILINE))
    assert set(known_keys()) - told == {"sae.architecture"}


def test_metrics_that_the_readme_explains_exist():
    from sae_sweep.evaluation.metrics import METRICS

    told = re.findall(r"^\| `(\w+)` \|", PAGES["README"], re.MULTILINE)
    assert len(told) == 12
    assert set(told) <= set(METRICS)
