"""A process in which Triton interprets its kernels, shared by all tests of them."""

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from tests.kernels import interpreted

Interpret = Callable[..., Any]


@pytest.fixture(scope="session")
def interpret() -> Iterator[Interpret]:
    """Calls module:function in a process that imported Triton as an interpreter, which this one must not."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:

        def call(name: str, *arguments: object, **constants: object) -> Any:
            with pytest.MonkeyPatch.context() as patch:  # the process starts with the first call
                patch.setenv("TRITON_INTERPRET", "1")
                future = pool.submit(interpreted.call, pickle.dumps((name, arguments, constants)))
            return pickle.loads(future.result(timeout=300))

        yield call
