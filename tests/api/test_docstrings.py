"""What docstrings of the Python API show, run as it stands beside a finished sweep."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import sae_sweep as ss
import sae_sweep.api

MODULES = [module.name for module in pkgutil.iter_modules(sae_sweep.api.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name, sweep, monkeypatch):
    monkeypatch.chdir(sweep.folder.parents[1])
    module = importlib.import_module(f"sae_sweep.api.{name}")
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        sae = sweep["topk-l0_8-w256"]
        test.globs |= {"ss": ss, "sweep": sweep, "sae": sae, "model": sae.model(), "torch": torch}
        assert runner.run(test).failed == 0, test.name


def test_most_of_the_api_has_an_example():
    finder = doctest.DocTestFinder()
    shown = [
        test.name
        for name in MODULES
        for test in finder.find(importlib.import_module(f"sae_sweep.api.{name}"))
        if test.examples
    ]
    assert len(shown) >= 8
