"""Measure what docs/measured.md says, on the demo model or on yours.

    python scripts/measured.py                                                  # the demo model and its text
    python scripts/measured.py --name mine --model DIR --tokens train.npz --heldout heldout.npz context=256
    python scripts/measured.py --page                                           # docs/measured.md from the numbers

It trains `+experiment=measured` into outputs/measured_<name>, asks its analyses, and writes the numbers to
tests/evidence/measured/<name>.json. What is there already is not made again: a command that was stopped goes on.
Further words are overrides of the sweep, as `site.layer=1 training.tokens=1e6`.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import sae_sweep as ss
from sae_sweep.analyses.session.command import analyse
from sae_sweep.config.files import config_folder
from sae_sweep.errors import ConfigError
from scripts.findings.page import NUMBERS, write
from scripts.findings.questions import QUESTIONS, Question, Swept

BUDGET = ("training.tokens", "training.batch_size", "evaluation.tokens", "site.layer", "data.context")


def trained(arguments: argparse.Namespace) -> Path:
    """The folder of the finished sweep."""
    words = ["+experiment=measured", "tracking=none", *arguments.overrides]
    if arguments.model is not None:
        words += ["model=local", f"model.path={arguments.model}", "data=tokens", f"data.path={arguments.tokens}"]
        words += [f"data.heldout_path={arguments.heldout}"] if arguments.heldout is not None else []
    folder = arguments.outputs / f"measured_{arguments.name}"
    ss.train(*words, name=folder.name, output_dir=arguments.outputs)
    return folder


def ask(folder: Path, question: Question) -> bool:
    """Have an analysis answer, unless it did; False where it cannot be asked of this model."""
    if question.analysis is None or (folder / "analyses" / f"{question.analysis}.json").is_file():
        return True
    swept = Swept(folder)
    words = ["--analysis", question.analysis, "--member", ",".join(question.asked_of(swept))]
    try:
        analyse(folder, [*words, *(f"analysis.{question.analysis}.{key}" for key in question.keys)], config_folder())
    except ConfigError as error:
        print(f"{question.analysis}: not asked, {error}", file=sys.stderr)
        return False
    return True


def about(name: str, folder: Path) -> dict[str, Any]:
    """Which model, and what was spent, without places on this machine."""
    label = Swept(folder).labels("topk")[0]
    said = json.loads((folder / label / "provenance.json").read_text(encoding="utf-8"))
    config: dict[str, Any] = said["config"]
    flat = {
        f"{group}.{key}": value for group, own in config.items() if isinstance(own, dict) for key, value in own.items()
    }
    return {"name": name, "budget": {key: flat.get(key) for key in BUDGET}}


def main() -> None:
    """Train, ask, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="demo", help="of the model, in the tables")
    parser.add_argument("--model", help="a folder of a language model in Hugging Face's layout; without it, the demo's")
    parser.add_argument("--tokens", help="its token ids, an .npz; needed with --model")
    parser.add_argument("--heldout", help="token ids to judge on; without them the first of --tokens are kept for that")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where the sweep is kept")
    parser.add_argument("--page", action="store_true", help="only write the page and its figures")
    parser.add_argument("--train", action="store_true", help="only train")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    if (arguments.model is None) != (arguments.tokens is None):
        parser.error("--model and --tokens belong together")
    if arguments.page:
        return write()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = trained(arguments)
    if arguments.train:
        return None
    asked = {name: question for name, question in QUESTIONS.items() if ask(folder, question)}
    findings = {
        name: one.as_json() for question in asked.values() for name, one in question.find(Swept(folder)).items()
    }
    NUMBERS.mkdir(parents=True, exist_ok=True)
    found = {"about": about(arguments.name, folder), "findings": findings}
    (NUMBERS / f"{arguments.name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return write()


if __name__ == "__main__":
    main()
