"""Which commit of a dataset of the hub is streamed: it is asked for once, and the dataset opened at it. No torch."""

_ASKED: dict[str, str | None] = {}


def ask_commit(repository: str) -> str | None:
    """The commit that a dataset of the hub is at; None where the hub does not say. A process asks once, so all that it
    reads is of one commit."""
    from huggingface_hub import HfApi

    if repository not in _ASKED:
        try:
            _ASKED[repository] = HfApi().dataset_info(repository, timeout=10).sha
        except Exception:  # hub, HTTP and network errors share no type; opening it says what is wrong
            _ASKED[repository] = None
    return _ASKED[repository]


def streamed_commit(repository: str) -> str | None:
    """The commit that this process streams; None where it has asked for none. No network."""
    return _ASKED.get(repository)
