"""A small sweep of the model that ships, trained from Python once for all tests of this folder."""

import argparse
import decimal
import inspect
import logging
import typing

import pytest

import sae_sweep as ss


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> ss.Sweep:
    """Four members, two of topk and two of gated."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "text.txt").write_text("\n".join(map(inspect.getsource, (argparse, decimal, logging, typing))))
    return ss.train(
        *("sae=topk,gated", "sae.l0=8,16", "sae.width=256", "site.layer=2", "tracking=none", "model.device=cpu"),
        *("training.tokens=2e4", "training.batch_size=512", "training.lr=6e-3"),
        *("data=text", f"data.path={folder / 'text.txt'}", "data.context=32", "data.block_rows=64"),
        *("evaluation.tokens=2e3", "evaluation.later_sites=1"),
        name="mine",
        output_dir=folder / "outputs",
    )
