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
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.host.memory import OUT_OF_MEMORY, give_back, is_out_of_memory
from sae_sweep.model.load import resolve_device
from sae_sweep.plan.placement import GB, USABLE
from sae_sweep.training.devices.lanes import Lanes
from sae_sweep.training.step.member import TrainedMember
from sae_sweep.training.step.trainer import BankTrainer

log = logging.getLogger(__name__)

PIN_EXACTLY = "pinned_max_round_threshold_mb"
"""A setting of the allocator of newer versions of torch."""
ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


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
    return USABLE * torch.cuda.mem_get_info(device)[0], host_bytes


def host_free() -> float | None:
    """Bytes of memory that the host could give; None where it does not say."""
    file = Path("/proc/meminfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    available = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if available is None else USABLE * 1024 * int(available)


class Paged:
    """A trainer whose tensors are on the host but for its turns."""

    def __init__(self, trainer: BankTrainer):
        """Takes the trainer's tensors to the host."""
        self.trainer = trainer
        self._host = {name: _on_host(tensor) for name, tensor in trainer.trained.tensors().items()}
        self._numbers: list[dict[str, Any]] = []
        self._records = 0
        trainer.trained.put(self._host)

    def remember(self) -> None:
        """Note where the members are, for `go_back`."""
        self._numbers = [member.numbers() for member in self.trainer.members]
        self._records = len(self.trainer.records)

    def come_in(self) -> None:
        """Copy the tensors to the device."""
        device = self.trainer.trained.device
        self.trainer.trained.put({name: t.to(device, non_blocking=True, copy=True) for name, t in self._host.items()})

    def leave(self) -> None:
        """Let go of what is on the device."""
        self.trainer.trained.put(self._host)

    def go_out(self) -> None:
        """Keep what the turn gave. Whether it is finite is looked at on the device, which is many times as fast."""
        for member in self.trainer.members:
            if member.running:
                _ = member.finite
        for name, tensor in self.trainer.trained.tensors().items():
            self._host[name].copy_(tensor, non_blocking=True)
        if self.trainer.trained.device.type == "cuda":
            torch.cuda.synchronize(self.trainer.trained.device)
        self.leave()

    def go_back(self) -> None:
        """Be what it was when it was told to remember."""
        self.leave()
        for member, numbers in zip(self.trainer.members, self._numbers, strict=True):
            member.load_numbers(numbers)
        del self.trainer.records[self._records :]

    def settle(self) -> BankTrainer:
        """The trainer with its tensors on the device for good."""
        self.come_in()
        self._host = {}
        return self.trainer


Trainee: TypeAlias = BankTrainer | Paged
"""A trainer that stays on the device, or one that waits on the host."""


class Waves:
    """The trainers of a group, wave by wave."""

    def __init__(self, waves: Sequence[Sequence[Trainee]]):
        """Trainers that stay on the device, or `Paged` ones."""
        self._waves = [list(wave) for wave in waves]
        self._may_wait = all(isinstance(one, Paged) for wave in waves for one in wave)
        self._stays = True
        """Whether one wave stays on the device."""
        self._in_turn: list[BankTrainer] = []

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
        self._waves = [cut for wave in self._waves for cut in self._turn(lanes, wave, block, tick)]
        if len(self._waves) == 1 and self._stays:  # its first block, the fullest, is through
            self._waves = [[_settle(one) for one in self._waves[0]]]

    def _turn(self, lanes: Lanes, wave: list[Trainee], block: Block, tick: Callable[[], None]) -> list[list[Trainee]]:
        """Train a wave on the block; the waves it was cut into on the way."""
        paged = [one for one in wave if isinstance(one, Paged) and one.trainer.running]
        self._in_turn = [one.trainer for one in paged]
        for one in paged:
            one.remember()
        full = False
        try:
            for one in paged:
                one.come_in()
            lanes.consume([_trainer(one) for one in wave], block, tick)
        except OUT_OF_MEMORY as error:
            if not is_out_of_memory(error) or not (paged or self._can_go(wave)):
                self._end(paged)
                raise
            full = True  # dealt with below, where the error no longer holds what the step had made
        except BaseException:  # told to stop, or to wait for a checkpoint, between two steps
            self._end(paged)
            raise
        if not full:
            self._end(paged)
            return [wave]
        if not paged:  # they stayed on the device; what their steps gave is kept
            wave = self._gone(wave)
            paged = [one for one in wave if isinstance(one, Paged) and one.trainer.running]
        for one in paged:
            one.go_back()
        self._in_turn = []
        give_back()
        return self._halved(lanes, wave, paged, block, tick)

    def leave(self) -> bool:
        """Let a wave that stays on the device go to the host, and come in for its turns from here on; whether there was
        one that can."""
        if len(self._waves) != 1 or not self._can_go(self._waves[0]):
            return False
        self._waves, self._stays = [self._gone(self._waves[0])], False
        return True

    def _can_go(self, wave: Sequence[Trainee]) -> bool:
        """Whether a wave is on the device, and in a state to leave it: no step is half done."""
        return self._may_wait and all(isinstance(one, BankTrainer) and one.whole for one in wave)

    def _gone(self, wave: Sequence[Trainee]) -> list[Trainee]:
        """A wave that was on the device, on the host."""
        gone = [Paged(_trainer(one)) for one in wave]
        for one in gone:
            one.remember()
        return list(gone)

    def _end(self, paged: Sequence[Paged]) -> None:
        """Keep what a turn gave."""
        for one in paged:
            one.go_out()
        self._in_turn = []

    def _halved(
        self, lanes: Lanes, wave: list[Trainee], paged: list[Paged], block: Block, tick: Callable[[], None]
    ) -> list[list[Trainee]]:
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
        return [cut for half in halves for cut in self._turn(lanes, half, block, tick)]

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
                one.come_in()
            yield
        finally:
            for one in waiting:
                one.leave()


def _trainer(one: Trainee) -> BankTrainer:
    return one.trainer if isinstance(one, Paged) else one


def _settle(one: Trainee) -> BankTrainer:
    return one.settle() if isinstance(one, Paged) else one


def _on_host(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cuda":
        return tensor
    _pin_exactly()
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor)


def _pin_exactly() -> None:
    """Have torch pin as much as it is asked for, where it can: by itself it takes powers of two, for the members of
    gated_gemma 245 GB where they have 155."""
    settings = next((os.environ[name] for name in ALLOCATOR_VARIABLES if os.environ.get(name)), "")
    change = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    if change is not None and PIN_EXACTLY not in settings:
        change(f"{settings},{PIN_EXACTLY}:16".lstrip(","))  # all anew: what it is not told is as if never said
