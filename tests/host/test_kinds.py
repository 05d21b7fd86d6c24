"""Kinds are found in their folder and among entry points, by name, and imported when asked for."""

import sys

import pytest

from sae_sweep.host.kinds import Kinds


@pytest.fixture
def elsewhere(install):
    """A folder of kinds, and another installed package that offers two more of the group `example`."""
    folder = {"folder/__init__.py": "", "folder/facts.py": "SAYS = 'facts'"}
    install("ours", {"__init__.py": "", "_private.py": "", "plain.py": "SAYS = 'ours'", **folder})
    theirs = {"__init__.py": "", "more.py": "SAYS = 'theirs'"}
    install("theirs", theirs, "[example]\nmore = theirs.more\nplain = theirs.more\n")


def test_modules_and_entry_points(elsewhere):
    found = Kinds("ours", "example")
    assert sorted(found) == ["more", "plain"]
    assert "ours.plain" not in sys.modules
    assert found["more"].SAYS == "theirs"
    assert found["plain"].SAYS == "ours", "no other package takes the name of one of ours"
    with pytest.raises(KeyError):
        found["_private"]


def test_folders(elsewhere):
    found = Kinds("ours", "nobody", inside="facts")
    assert list(found) == ["folder"]
    assert found["folder"].SAYS == "facts"
