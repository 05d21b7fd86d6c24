"""Servers that do not answer."""

import socket
from time import monotonic

import pytest
from huggingface_hub import constants

from sae_sweep.host.network import answers, look_at_hub


def test_who_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    answers.cache_clear()
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert answers(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert not answers("http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert answers("https://nowhere.invalid")  # the proxy's to say


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    start = monotonic()
    look_at_hub()
    assert constants.HF_HUB_OFFLINE
    assert monotonic() - start < 5
