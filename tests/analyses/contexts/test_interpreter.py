"""Questions to an interpreter, and the scores of its answers."""

import json
from pathlib import Path

import pytest

from sae_sweep.analyses.contexts.interpreter import (
    Question,
    Text,
    as_lines,
    explain,
    read_answers,
    score,
    score_questions,
)
from sae_sweep.errors import ConfigError

TEXT = Text(["a", "b", "c", "d"], [0.0, 1.0, 0.4, 0.6])


def test_texts_are_marked_where_the_latent_is_at_half_its_largest() -> None:
    assert TEXT.plain() == "abcd"
    assert TEXT.marked(TEXT.active) == "a<<b>>c<<d>>"
    question = explain("m 3", [TEXT])
    assert question.id == "m 3 explain"
    assert question.prompt.endswith("1. 'a<<b>>c<<d>>'")


def test_scores_are_balanced() -> None:
    question = Question("x", "", (1, 1, 1, 0))
    assert score(question, {"x": [1, 1, 0, 0]}) == pytest.approx((2 / 3 + 1) / 2)
    assert score(question, {"x": "[1, 1, 1, 1]"}) == 0.5
    assert score(question, {"x": [1]}) is None
    assert score(question, {"x": "no list"}) is None
    assert score(question, {"x": ["1", "1", "0", "0"]}) is None, "the word 0 is not nothing"
    assert score(question, {"x": [True, 1.0, 0, False]}) == pytest.approx((2 / 3 + 1) / 2)
    assert score(question, {}) is None


def test_half_of_the_texts_are_true() -> None:
    fires = [Text([f"f{i}", "x"], [1.0, 0.0]) for i in range(4)]
    silent = [Text([f"s{i}", "x"], [0.0, 0.0]) for i in range(4)]
    detection, fuzzing = score_questions("m 3", "words", fires, silent, "0")
    lines = detection.prompt.splitlines()[-8:]
    assert sorted(detection.truth) == [0] * 4 + [1] * 4
    assert [int("'f" in line) for line in lines] == list(detection.truth)
    marked = fuzzing.prompt.splitlines()[-4:]
    assert [int("<<f" in line) for line in marked] == list(fuzzing.truth)
    assert all("<<" in line for line in marked)
    assert "active on: words" in detection.prompt
    assert score_questions("m 3", "words", fires, silent, "0")[0].truth == detection.truth
    assert score_questions("m 3", "words", fires, [], "0") == []


def test_wrong_marks_are_anywhere() -> None:
    """Of nine tokens the middle one is right, and each other is marked in some of a hundred texts."""
    fires = [Text(list("abcdefghi"), [0.0] * 4 + [1.0] + [0.0] * 4) for _ in range(200)]
    silent = [Text(list("abcdefghi"), [0.0] * 9) for _ in range(200)]
    _, fuzzing = score_questions("m 3", "words", fires, silent, "0")
    lines = fuzzing.prompt.splitlines()[-200:]
    marks = [line[line.index("<<") + 2] for line, truth in zip(lines, fuzzing.truth, strict=True) if not truth]
    assert (len(marks), set(marks)) == (100, set("abcdfghi"))


def test_files(tmp_path: Path) -> None:
    assert json.loads(as_lines([Question("a", "b", (1,))])) == {"id": "a", "prompt": "b"}
    file = tmp_path / "answers.jsonl"
    file.write_text('{"id": "a", "answer": [1]}\n\n{"id": "b", "answer": "words"}\n')
    assert read_answers(file) == {"a": [1], "b": "words"}
    file.write_text('{"id": "a"}\n')
    with pytest.raises(ConfigError, match="line 1 is not JSON with id and answer"):
        read_answers(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_answers(tmp_path / "none")
