"""Config files of whatever origin: read, or told by name."""

from pathlib import Path

import pytest

from sae_sweep.cli import main

HEAD = "# @package _global_\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
FILES: dict[str, tuple[str | bytes, str]] = {
    "an anchor that holds itself": ("seed: &a [*a]", "with its anchors copied"),
    "anchors of anchors": (BOMB, "has 1.23e+10 entries, with its anchors copied"),
    "UTF-16": ("seed: 1".encode("utf-16"), "not UTF-8 text"),
    "code": ("seed: !!python/object/apply:os.system [ls]", "could not determine a constructor for the tag"),
    "deep": ("seed: " + "[" * 900 + "]" * 900, "nested too deeply"),
    "a value alone": ("5", "x.yaml: "),
    "a key twice": ("seed: 1\nseed: 2", "found duplicate key seed, line 3"),
    "defaults that are a number": ("defaults: 5", "defaults must be a list (got int)"),
    "defaults of numbers": ("defaults: [5]", "Unsupported type in defaults"),
    "files in a circle": ("defaults: [/experiment/x]", "name each other in a circle"),
    "a mark": ('"\\e[31m": 1', r"\x1b[31m: no such key"),
    "a sweeper of no keys": ("hydra: {sweeper: {foo: 1}}", "hydra.sweeper.foo: no such key"),
    "a grid of no key": ("hydra: {sweeper: {grids: [{1: 1}]}}", "hydra.sweeper.grids[0]: 1 cannot be swept"),
    "a megabyte": ("#" * 2_000_000, "has 2000020 bytes"),
    "too many members": ("hydra: {sweeper: {grids: [{seed: 'range(0,1000000000)'}]}}", "over 10000 members"),
}


def test_an_experiment_without_its_first_line_is_told_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "experiment/x.yaml"
    file.parent.mkdir()
    file.write_text("name: mine\n")
    monkeypatch.chdir(tmp_path)
    assert main(["+experiment=x", "--config-dir", ".", "dry_run=true"]) == 2
    assert "the first line of an experiment's file is `# @package _global_`" in capsys.readouterr().err


@pytest.mark.parametrize("kind", FILES)
def test_an_experiment_that_cannot_be_is_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    contents, said = FILES[kind]
    file = tmp_path / "mine/experiment/x.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(contents if isinstance(contents, bytes) else (HEAD + contents).encode())
    monkeypatch.chdir(tmp_path)
    assert main(["+experiment=x", "--config-dir", "mine", "dry_run=true"]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert said in told.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["experiment", "mine", "x.yaml"]
