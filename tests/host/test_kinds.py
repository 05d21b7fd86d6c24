"""Kinds are found in their folder and among entry points, by name, and imported when asked for."""

import sys
from importlib import invalidate_caches

import pytest

from sae_sweep.host import kinds
from sae_sweep.host.kinds import Kinds


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder of kinds, and another installed package that offers two more of the group `example`."""
    for name in ("ours/__init__.py", "ours/_private.py", "ours/folder/__init__.py", "theirs/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "ours" / "plain.py").write_text("SAYS = 'ours'")
    (tmp_path / "ours" / "folder" / "facts.py").write_text("SAYS = 'facts'")
    (tmp_path / "theirs" / "more.py").write_text("SAYS = 'theirs'")
    information = tmp_path / "theirs-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[example]\nmore = theirs.more\nplain = theirs.more\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    invalidate_caches()
    kinds._installed.cache_clear()
    kinds._own.cache_clear()
    yield
    kinds._installed.cache_clear()
    kinds._own.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] in ("ours", "theirs")]:
        del sys.modules[name]


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
