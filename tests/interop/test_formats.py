"""A format is one module that recognises a folder and reads it, found among other packages' entry points too."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sae_sweep.interop import load_sae

PLAIN = """
def recognise(folder):
    return (folder / "plain.sae").is_file()


def read(folder):
    return (folder / "plain.sae").read_text()
"""


def test_one_of_another_package(tmp_path: Path, install: Callable[..., None]) -> None:
    install("theirs", {"__init__.py": "", "plain.py": PLAIN}, "[sae_sweep.interop]\nplain = theirs.plain\n")
    with pytest.raises(ValueError, match=r"no SAE in a known format: plain, .*saelens") as caught:
        load_sae(tmp_path)
    assert "neuronpedia" not in str(caught.value)  # which is written, not read
    (tmp_path / "plain.sae").write_text("theirs")
    assert load_sae(tmp_path) == "theirs"
