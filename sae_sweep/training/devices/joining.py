"""Which ranks this process trains with: how it meets them, and how they part."""

from collections.abc import Callable
from contextlib import suppress

from sae_sweep.config.schema import LauncherConfig
from sae_sweep.errors import ConfigError, ProcessLost
from sae_sweep.host.rank_processes import Role, Started, end_with_starter, role
from sae_sweep.model.load import resolve_device
from sae_sweep.training.devices.ranks import ALONE, Dismissed, Ranks

_joined: list[Ranks] = []


def joined() -> Ranks:
    """The ranks that this process has joined: itself alone before it is asked to `join`."""
    return _joined[0] if _joined else ALONE


def join(launcher: LauncherConfig, device: str) -> Ranks:
    """Meet the other ranks that torchrun started, or start as many as `launcher.devices` says, each on a `device` of
    its own. Raises ConfigError."""
    own = role()
    if _joined or (own.size == 1 and launcher.devices == 1):
        return joined()
    if ":" in device:
        raise ConfigError(f"model.device={device} is one device, and each rank has its own; give cuda, or auto")
    if own.size > 1 and launcher.devices not in (1, own.size):
        raise ConfigError(
            f"launcher.devices={launcher.devices}, but torchrun started {own.size} ranks; give the same number, or none"
        )
    if own.size == 1 and launcher.hosts > 1:
        raise ConfigError(
            f"launcher.hosts={launcher.hosts}: start the command on each of them, with `torchrun"
            f" --nnodes {launcher.hosts} --nproc-per-node {launcher.devices // launcher.hosts} -m sae_sweep.cli ...`"
        )
    started = Started(launcher.devices) if own.size == 1 else None
    size = launcher.devices if started is not None else own.size
    local_size = size if started is not None else own.local_size
    _joined.append(Ranks(Role(0, size, local_size), resolve_device(device), started))
    return joined()


def dismiss() -> None:
    """As rank 0: let the other ranks end. They wait for this also where nothing was to be trained."""
    if not _joined and role().size > 1:
        _joined.append(Ranks(role()))
    joined().dismiss()


def follow(work: Callable[[Ranks], None]) -> None:
    """As another rank: do what rank 0 says, until it says that there is nothing more. A failure is rank 0's to tell."""
    end_with_starter()
    ranks = Ranks(role())
    _joined.append(ranks)
    with suppress(Dismissed):
        while True:
            try:
                with ranks.together():
                    work(ranks)
            except ProcessLost:
                raise
            except Exception:
                continue  # all ranks know, and rank 0 says it
