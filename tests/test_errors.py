"""The words for errors that are not ours."""

import pytest
import yaml

from sae_sweep.errors import MOST_CHARACTERS, first_line, one_line


def test_one_line() -> None:
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line(ValueError("x" * 10_000))) == MOST_CHARACTERS


def test_what_yaml_says_is_what_and_where() -> None:
    with pytest.raises(yaml.YAMLError) as found:
        yaml.safe_load("a: 1\nb: [1, 2\nc: 3\n")
    assert first_line(found.value) == "expected ',' or ']', but got ':', line 3"
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(RecursionError()) == "RecursionError"
