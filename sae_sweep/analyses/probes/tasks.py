"""Labelled texts: from the Python standard library's own source, and from files of one's own. No torch.

Every task is decided by the syntax tree, so that the same source gives the same examples in every Python that parses
it. Which files and examples are taken is decided by hashes, not by what else an interpreter's library has.
"""

import ast
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sae_sweep.data.kinds.demo import demo_files, demo_root
from sae_sweep.errors import ConfigError

FEWEST = 20
"""Examples that a label needs."""
SHORTEST, LONGEST = 20, 400
"""Characters of a text."""
OF_A_FILE = 0.05
"""Of a label's examples, that one file may give."""


@dataclass(frozen=True)
class Example:
    """A text, what it is, and which file it is from: texts of one file are never on both sides of a split."""

    text: str
    label: str
    source: str


@dataclass(frozen=True)
class Task:
    """Texts with labels, of which a probe is asked to tell one from the others."""

    name: str
    examples: tuple[Example, ...]
    last: bool
    """Whether the last token is what has the label, or the whole text."""

    @property
    def labels(self) -> list[str]:
        """All that there are, sorted."""
        return sorted({one.label for one in self.examples})


def construct(source: str) -> Iterator[tuple[str, str]]:
    """The bodies of loops, branches, tries and withs, without the line that says which it is."""
    kinds = {ast.For: "loop", ast.While: "loop", ast.If: "branch", ast.Try: "try", ast.With: "with"}
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.For | ast.While | ast.If | ast.Try | ast.With):
            yield "\n".join(lines[node.body[0].lineno - 1 : node.body[-1].end_lineno]).strip(), kinds[type(node)]


def prose(source: str) -> Iterator[tuple[str, str]]:
    """Docstrings, and the code of simple statements."""
    lines = source.encode().split(b"\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            said = ast.get_docstring(node)
            if said:
                yield said.split("\n\n")[0].strip(), "docstring"
        if isinstance(node, ast.Assign | ast.Return | ast.AugAssign | ast.Assert | ast.Raise):
            yield _segment(lines, node), "code"


def _segment(lines: Sequence[bytes], node: ast.stmt) -> str:
    """The code of a node. The standard library's own function would split the source for each."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    text = b"\n".join(lines[first : last + 1])
    after = len(lines[last]) - (node.end_col_offset or 0)
    return text[node.col_offset : len(text) - after].decode(errors="replace")


def identifier(source: str) -> Iterator[tuple[str, str]]:
    """Lines up to an identifier: a function that is called, a parameter, an attribute, a module."""
    lines = source.encode().split(b"\n")
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) not in inside:  # whose columns are not the same in all versions
            for line, column, label in _identifiers(node):
                yield lines[line - 1][:column].decode(errors="replace").strip(), label


def _identifiers(node: ast.AST) -> Iterator[tuple[int, int, str]]:
    """The line and the end column, in bytes, of the identifiers that a node is of."""
    match node:
        case ast.Call(func=ast.Name() as name):
            yield name.lineno, name.end_col_offset or 0, "function"
        case ast.arg():
            yield node.lineno, node.col_offset + len(node.arg.encode()), "parameter"
        case ast.Attribute(end_lineno=int(line), end_col_offset=int(column)):
            yield line, column, "attribute"
        case ast.alias(asname=None) if "." not in node.name and node.name != "*":
            yield node.lineno, node.end_col_offset or 0, "module"


MADE: Mapping[str, tuple[Callable[[str], Iterator[tuple[str, str]]], bool]] = {
    "construct": (construct, False),
    "prose": (prose, False),
    "identifier": (identifier, True),
}
"""What makes the examples of a source, and whether their last token has the label."""
LABELS = {"construct": 4, "prose": 2, "identifier": 4}


@lru_cache(8)
def library_task(name: str, each: int) -> Task:
    """As many examples of each label from the standard library, or as many as all have. Raises ConfigError for a task
    that there is not."""
    if name not in MADE:
        raise ConfigError(f"analysis.probing.tasks: {name} is not one of {', '.join(MADE)}; labelled=FILE has others")
    make, last = MADE[name]
    root, found, labels = demo_root(), dict[str, list[Example]](), Counter[str]()
    for path in sorted(demo_files(), key=_hash):
        try:
            made = list(make((root / path).read_text(encoding="utf-8")))
        except (SyntaxError, ValueError, RecursionError):
            continue  # a source for another Python
        for one in _drawn(path, made, max(1, round(OF_A_FILE * each))):
            if labels[one.label] < each:
                labels[one.label] += 1
                found.setdefault(one.label, []).append(one)
        if len(labels) == LABELS[name] and min(labels.values()) >= each:
            break
    return Task(name, tuple(example for label in sorted(found) for example in found[label]), last)


def _drawn(path: str, made: Iterable[tuple[str, str]], most: int) -> Iterator[Example]:
    """The examples of a file that are taken: of each label at most so many, each text once."""
    taken: Counter[str] = Counter()
    for text, label in sorted({(text[:LONGEST], label) for text, label in made}, key=lambda one: _hash(one[0])):
        if len(text) >= SHORTEST and taken[label] < most:
            taken[label] += 1
            yield Example(text, label, path)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def labelled_task(file: Path) -> Task:
    """The task of a JSONL file whose lines have `text` and `label`, and `source` where texts belong together. Raises
    ConfigError for what is none."""
    key = f"analysis.probing.labelled={file}"
    try:
        lines = file.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: cannot be read ({error})") from error
    examples = tuple(_example(key, number, line) for number, line in enumerate(lines, 1) if line.strip())
    counts = Counter(one.label for one in examples)
    if len(counts) < 2:
        raise ConfigError(f"{key}: all {len(examples)} lines have one label; a probe needs two to tell apart")
    label, fewest = min(counts.items(), key=lambda one: one[1])
    if fewest < FEWEST:
        raise ConfigError(f"{key}: label {label!r} has {fewest} examples; each needs {FEWEST}")
    return Task(file.stem, examples, last=False)


def _example(key: str, number: int, line: str) -> Example:
    try:
        entries = json.loads(line)
        text, label = entries["text"], entries["label"]
    except (ValueError, TypeError, KeyError) as error:
        lacks = f"has no {error}" if isinstance(error, KeyError) else "is no JSON object"
        raise ConfigError(f"{key}: line {number} {lacks}; each needs text and label") from error
    if not isinstance(text, str) or not text or not isinstance(label, str | int | bool):
        raise ConfigError(f"{key}: line {number}: text must be words, and label a word or a number")
    return Example(text, str(label), str(entries.get("source", number)))
