"""Members that do not fit the device together: they take turns inside a block (`plan/placement.py` plans them).

The block stays on the device. A wave's weights, moments, buffers and counters come from the host's memory (pinned,
where the device is a GPU), are trained over the whole block, and go back. What lies on the host meanwhile is the state
before the block: a wave that runs out of memory is cut in two, and each half does the block again from there. One wave
stays on the device from its first block on. Should memory not last for a step of it, its members go to the host as they
are between two steps, and take turns from there.

On a CPU the device's memory is the host's. Without `launcher.memory_gb` nothing waits there; with it coming in is a
copy, as it is on a GPU, and costs memory instead of saving it: for trying a plan out.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import torch

from sae_sweep.activations.block import Block
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.host.memory import OUT_OF_MEMORY, give_back, is_out_of_memory
from sae_sweep.model.load import resolve_device
from sae_sweep.plan.memory import CONTEXT_BYTES
from sae_sweep.plan.placement import GB, USABLE
from sae_sweep.training.devices.ferry import Ferry
from sae_sweep.training.devices.lanes import Lanes
from sae_sweep.training.devices.paged import Paged
from sae_sweep.training.step.member import TrainedMember
from sae_sweep.training.step.trainer import BankTrainer

log = logging.getLogger(__name__)


def memory_limits(config: MemberConfig) -> tuple[float | None, float | None]:
    """Bytes of the device and of the host that a group may fill; None is no limit."""
    asked, host = config.launcher.memory_gb, config.launcher.host_memory_gb
    device = resolve_device(config.model.device)
    host_bytes = host * GB if host is not None else host_free()
    if asked is not None:
        return asked * GB, host_bytes
    if device.type != "cuda":
        return None, host_bytes
    torch.cuda.empty_cache()  # what an earlier group left to the allocator is free
    free = torch.cuda.mem_get_info(device)[0]
    return USABLE * free + CONTEXT_BYTES, host_bytes  # of which the context has its part already


def host_free() -> float | None:
    """Bytes of memory that the host could give; None where it does not say."""
    file = Path("/proc/meminfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    available = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if available is None else USABLE * 1024 * int(available)


Trainee: TypeAlias = BankTrainer | Paged
"""A trainer that stays on the device, or one that waits on the host."""


class Waves:
    """The trainers of a group, wave by wave."""

    def __init__(self, waves: Sequence[Sequence[Trainee]], ahead: Sequence[bool] = ()):
        """Trainers that stay on the device, or `Paged` ones; `ahead` says of each wave whether there is room for the
        next one beside it."""
        self._waves = [list(wave) for wave in waves]
        self._may_wait = all(isinstance(one, Paged) for wave in waves for one in wave)
        self._stays = True
        """Whether one wave stays on the device."""
        self._in_turn: list[BankTrainer] = []
        self._ahead = list(ahead or [False] * len(waves))
        self._ferry: Ferry | None = None

    @property
    def trainers(self) -> list[BankTrainer]:
        return [_trainer(one) for wave in self._waves for one in wave]

    @property
    def members(self) -> list[TrainedMember]:
        return [member for trainer in self.trainers for member in trainer.members]

    @property
    def settled(self) -> list[BankTrainer]:
        """Those whose last steps will not be taken back."""
        return [trainer for trainer in self.trainers if trainer not in self._in_turn]

    @property
    def running(self) -> bool:
        return any(trainer.running for trainer in self.trainers)

    def consume(self, lanes: Lanes, block: Block, tick: Callable[[], None]) -> None:
        """Train every member on the block. Raises ConfigError where one alone runs out of memory."""
        at = 0
        try:
            while at < len(self._waves):
                at += self._turn(lanes, at, block, tick)
        finally:
            self._close()
        if len(self._waves) == 1 and self._stays:  # its first block, the fullest, is through
            self._waves = [[_settle(one) for one in self._waves[0]]]

    def _turn(self, lanes: Lanes, at: int, block: Block, tick: Callable[[], None]) -> bool:
        """Train a wave on the block; whether there was memory for it. Where there was not, those that are in its place
        from here on do the block from where it was."""
        wave, full = self._waves[at], False
        paged = _running(wave)
        self._in_turn = [one.trainer for one in paged]
        for one in paged:
            one.remember()
        try:
            if paged:
                self._bring(at, paged)
            lanes.consume([_trainer(one) for one in wave], block, tick)
        except OUT_OF_MEMORY as error:
            if not is_out_of_memory(error) or not (paged or self._can_go(wave)):
                self._end(paged)
                raise
            full = True  # dealt with below, where the error no longer holds what the step had made
        except BaseException:  # told to stop, or to wait for a checkpoint, between two steps
            self._end(paged)
            raise
        if full:
            self._make_room(at, paged, block)
        else:
            self._end(paged)
        return not full

    def _bring(self, at: int, paged: list[Paged]) -> None:
        """Have members on the device, and those of the next wave on their way."""
        self._ferry = self._ferry or Ferry(paged[0].trainer.trained.device)
        running = [_running(wave) for wave in self._waves]
        self._ferry.open(running)
        self._ferry.bring(paged)
        if self._ahead[at] and at + 1 < len(running):
            self._ferry.begin(running[at + 1])

    def _end(self, paged: Sequence[Paged]) -> None:
        """Keep what a turn gave."""
        for one in paged:
            one.look()
        if self._ferry is not None:
            self._ferry.take()
        self._in_turn = []

    def _make_room(self, at: int, paged: Sequence[Paged], block: Block) -> None:
        """Let a wave be where it was before its turn, with more memory for the next one."""
        if not paged:  # they stayed on the device; what their steps gave is kept
            self._go(at)
        for one in paged:
            one.go_back()
        self._in_turn = []
        self._close()
        give_back()
        if self._ahead[at]:  # with nothing beside it, it may do
            self._ahead[at] = False
        else:
            self._cut(at, block)

    def _close(self) -> None:
        if self._ferry is not None:
            self._ferry.close()

    def leave(self) -> bool:
        """Let a wave that stays on the device go to the host, and come in for its turns from here on; whether there was
        one that can."""
        if len(self._waves) != 1 or not self._can_go(self._waves[0]):
            return False
        self._go(0)
        self._stays = False
        return True

    def _can_go(self, wave: Sequence[Trainee]) -> bool:
        """Whether a wave is on the device, and in a state to leave it: no step is half done."""
        return self._may_wait and all(isinstance(one, BankTrainer) and one.whole for one in wave)

    def _go(self, at: int) -> None:
        """Let a wave that was on the device be on the host."""
        wave = self._waves[at]
        for place, one in enumerate(wave):
            wave[place] = Paged(_trainer(one))

    def _cut(self, at: int, block: Block) -> None:
        """Let the halves of a wave be in its place. Raises ConfigError where it has no halves."""
        wave, paged = self._waves[at], _running(self._waves[at])
        if len(paged) == 1:
            labels = ", ".join(member.plan.label for member in paged[0].trainer.members)
            raise ConfigError(
                f"launcher.memory_gb: {labels} ran out of memory alone on the device; lower sae.width,"
                " training.batch_size or data.block_rows"
            )
        middle = wave.index(paged[len(paged) // 2])
        halves = [wave[:middle], wave[middle:]]
        counts = [sum(len(_trainer(one).members) for one in half) for half in halves]
        log.warning(
            "launcher.memory_gb: out of memory with %d members on the device; from block %d on they take turns,"
            " %d and %d",
            *(sum(counts), block.index, *counts),
        )
        self._waves[at : at + 1], self._ahead[at : at + 1] = halves, [False, False]

    def each(self) -> Iterator[list[TrainedMember]]:
        """The members of each wave; `here` brings them in."""
        for wave in list(self._waves):
            yield [member for one in wave for member in _trainer(one).members]

    @contextmanager
    def here(self, members: Sequence[TrainedMember]) -> Iterator[None]:
        """While this lasts, these members are on the device; what is changed on them is lost."""
        every = [one for wave in self._waves for one in wave if isinstance(one, Paged)]
        waiting = [one for one in every if not set(members).isdisjoint(one.trainer.members)]
        try:
            for one in waiting:
                one.visit()
            yield
        finally:
            for one in waiting:
                one.leave()


def _trainer(one: Trainee) -> BankTrainer:
    return one.trainer if isinstance(one, Paged) else one


def _running(wave: Sequence[Trainee]) -> list[Paged]:
    """Those that come in for their turn."""
    return [one for one in wave if isinstance(one, Paged) and one.trainer.running]


def _settle(one: Trainee) -> BankTrainer:
    return one.settle() if isinstance(one, Paged) else one
