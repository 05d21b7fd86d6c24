"""Labelled texts from source, by hand; the same from this interpreter's library each time."""

import json
from collections import Counter
from pathlib import Path

import pytest

from sae_sweep.analyses.probes.tasks import LABELS, MADE, construct, identifier, labelled_task, library_task, prose
from sae_sweep.errors import ConfigError

SOURCE = '''"""What this is.

More of it."""
import os.path, json as j, re

def asked(first, *rest, key=None):
    """A sentence."""
    for each in rest:
        key = each.name
    while True:
        print(first, f"{j.dumps(key)}")
    with open(first) as file:
        return file.read()
    if key:
        del key
    try:
        assert key
    except ValueError:
        raise
'''


def test_constructs() -> None:
    assert sorted(construct(SOURCE)) == [
        ("assert key", "try"),
        ("del key", "branch"),
        ("key = each.name", "loop"),
        ('print(first, f"{j.dumps(key)}")', "loop"),
        ("return file.read()", "with"),
    ]


def test_prose() -> None:
    assert sorted(prose(SOURCE)) == [
        ("A sentence.", "docstring"),
        ("What this is.", "docstring"),
        ("assert key", "code"),
        ("key = each.name", "code"),
        ("raise", "code"),
        ("return file.read()", "code"),
    ]


def test_identifiers() -> None:
    """Nothing that stands in an f-string: its columns are not the same before Python 3.12."""
    assert sorted(identifier(SOURCE)) == [
        ("def asked(first", "parameter"),
        ("def asked(first, *rest", "parameter"),
        ("def asked(first, *rest, key", "parameter"),
        ("import os.path, json as j, re", "module"),
        ("key = each.name", "attribute"),
        ("print", "function"),
        ("return file.read", "attribute"),
        ("with open", "function"),
    ]


@pytest.mark.parametrize("name", sorted(MADE))
def test_the_library_gives_as_many_of_each(name: str) -> None:
    task = library_task(name, 20)
    counts = Counter(one.label for one in task.examples)
    assert counts == dict.fromkeys(task.labels, 20)
    assert len(counts) == LABELS[name]
    assert task == library_task(name, 20)
    assert max(Counter((one.source, one.label) for one in task.examples).values()) == 1, "a twentieth of 20"
    assert len({one.text for one in task.examples}) > 70 * len(counts) / 4
    made = MADE[name][0]
    some = task.examples[0]
    from sae_sweep.data.kinds.demo import demo_root

    assert (some.text, some.label) in {
        (text[:400], label) for text, label in made((demo_root() / some.source).read_text(encoding="utf-8"))
    }


def write(file: Path, lines: list[object]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_ones_own(tmp_path: Path) -> None:
    lines = [{"text": f"text {i}", "label": i % 2 == 0, "source": i // 4} for i in range(40)]
    task = labelled_task(write(tmp_path / "mine.jsonl", lines))
    assert (task.name, task.labels, task.last) == ("mine", ["False", "True"], False)
    assert [one.source for one in task.examples[3:5]] == ["0", "1"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"text": "a"}], "line 1 has no 'label'; each needs text and label"),
        (["a"], "line 1 is no JSON object; each needs text and label"),
        ([{"text": "", "label": 1}], "line 1: text must be words"),
        ([{"text": "a", "label": 1}] * 30, "all 30 lines have one label"),
        ([{"text": "a", "label": 1}] * 30 + [{"text": "a", "label": 2}], "label '2' has 1 examples; each needs 20"),
    ],
)
def test_files_without_labels(lines: list[object], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        labelled_task(write(tmp_path / "mine.jsonl", lines))


def test_what_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"analysis.probing.tasks: x is not one of construct, prose, identifier"):
        library_task("x", 20)
    with pytest.raises(ConfigError, match="cannot be read"):
        labelled_task(tmp_path / "none.jsonl")
