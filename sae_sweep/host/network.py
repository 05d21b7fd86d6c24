"""Whether a server answers, asked before a library does whose patience is longer than a person's. No torch."""

import os
import socket
import sys
from contextlib import suppress
from functools import cache
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 4.0
"""Seconds, of looking up its name and connecting together."""


@cache
def answers(url: str) -> bool:
    """Whether a connection to the server of a URL can be made; behind a proxy nobody knows, and it is taken to."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return True
    connected: list[bool] = []

    def connect() -> None:
        with suppress(OSError), socket.create_connection((host, parts.port or 443), PATIENCE):
            connected.append(True)

    asking = Thread(target=connect, daemon=True)  # a name that is looked up knows no time limit
    asking.start()
    asking.join(PATIENCE)
    return bool(connected)


def look_at_hub() -> None:
    """Where the Hugging Face hub does not answer, have its libraries take what is kept on this machine, or say at once
    that there is nothing: their own retries take over half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or answers(constants.ENDPOINT):
        return
    os.environ["HF_HUB_OFFLINE"] = "1"  # for libraries that are not imported yet, and processes that are started
    constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:
        sys.modules["datasets"].config.HF_HUB_OFFLINE = True
