"""docs/notebook.ipynb is docs/notebook.md, and each of its cells runs, in order, in one process."""

import json
import subprocess
import sys

import pytest

import sae_sweep as ss
from scripts.make_notebook import DOCS, cells, run

PAGE = (DOCS / "notebook.md").read_text(encoding="utf-8")
BUDGET = {"training.tokens=1e5": "training.tokens=2e4", "evaluation.tokens=1e4": "evaluation.tokens=2e3"}


def test_the_notebook_is_made_of_the_page():
    notebook = json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))
    made = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert made == cells(PAGE), "run `python scripts/make_notebook.py`"


def test_every_cell_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = PAGE
    for budget, small in BUDGET.items():
        assert budget in page
        page = page.replace(budget, small)
    names, values = {}, []
    for kind, text in cells(page):
        if kind == "code":
            values.append(run(text, names))
    assert values[-1] is True  # codes by hand are codes
    assert len(values) > 12


@pytest.mark.parametrize("name", sorted(ss.__all__))
def test_every_name_is_there(name):
    assert getattr(ss, name) is not None
    assert name in dir(ss)


def test_importing_brings_in_nothing_heavy():
    code = "import sae_sweep as ss, sys; ss.open; ss.train; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ("torch", "pandas", "plotly", "transformers", "hydra")
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        ss.nothing  # noqa: B018
