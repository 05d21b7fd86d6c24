"""Streams and events of a device that is not there, and what is done on them before it may be.

Each stream, and the host, has a clock of what it knows to be done on each of them. What is asked of a stream comes
after all that was asked of it, and after all that the host knew; waiting for an event brings what its stream knew when
it was recorded. Of two that touch one storage, of which one writes, the later has to know of the earlier: else it is a
race. What the allocator does with memory that was let go is not seen.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

Clock = dict[str, int]
HOST, STEPS = "host", "steps"


class Event:
    """A moment of a stream."""

    def __init__(self, known: Clock) -> None:
        self.known = known


class Stream:
    """One of the streams of the device."""

    def __init__(self, streams: "Streams", name: str) -> None:
        self._streams, self.name = streams, name

    def record_event(self) -> Event:
        """What it knows when it gets there."""
        return Event(self._streams.known(self.name))

    def wait_event(self, event: Event) -> None:
        """From here on it knows of what is before the event."""
        self._streams.learn(self.name, event.known)

    def wait_stream(self, other: "Stream") -> None:
        """From here on it knows of what was asked of the other."""
        self.wait_event(other.record_event())

    def synchronize(self) -> None:
        """From here on the host knows of what was asked of it."""
        self._streams.learn(HOST, self.record_event().known)


class Streams:
    """All streams, who touched which storage last, and where that was no order."""

    def __init__(self) -> None:
        self._clocks: dict[str, Clock] = {HOST: {HOST: 0}, STEPS: {STEPS: 0}}
        self._on = STEPS
        self._reads: dict[int, Clock] = {}
        self._writes: dict[int, Clock] = {}
        self.watching = False
        """Whether it is looked at who touches what, which takes half as long again as all else."""
        self.races: list[str] = []
        self.copies: list[tuple[str, int]] = []
        """Between the host and the device: on which stream, and after how many operators of steps."""

    def functions(self) -> dict[str, Callable[..., Any]]:
        """What takes the place of those of `torch.cuda`."""
        return {
            "Stream": self._stream,
            "current_stream": lambda device=None: Stream(self, self._on),
            "stream": self._with,
            "synchronize": lambda device=None: self._everything(),
        }

    def known(self, name: str) -> Clock:
        """What a stream will know when it has done what was asked of it, and the host knows now."""
        self.learn(name, self._clocks[HOST])
        return dict(self._clocks[name])

    def learn(self, name: str, known: Clock) -> None:
        """Let a stream, or the host, know of more."""
        own = self._clocks[name]
        for other, time in known.items():
            own[other] = max(own.get(other, 0), time)

    def waited(self) -> None:
        """The host has waited for what was asked of the stream in use."""
        self.learn(HOST, self.known(self._on))

    def asked(self, func: Any, args: Sequence[Any], keys: dict[str, Any], made: Any) -> None:
        """An operator, on the stream in use if it has a tensor of the device."""
        if not self.watching:
            return
        arguments = func._schema.arguments
        named = [*zip(arguments, args, strict=False), *((one, keys[one.name]) for one in arguments if one.name in keys)]
        written = [value for one, value in named if one.alias_info is not None and one.alias_info.is_write]
        others = [value for one, value in named if one.alias_info is None or not one.alias_info.is_write]
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, keys))}
        views = all(tensor.untyped_storage()._cdata in given for tensor in _tensors(made)) and not _tensors(written)
        fresh = [tensor for tensor in _tensors(made) if tensor.untyped_storage()._cdata not in given]
        if not views:
            self.touched(_tensors(others), [*_tensors(written), *fresh])
        kinds = {tensor.device.type for tensor in _tensors((args, keys))}
        if func.overloadpacket.__name__ in ("copy_", "_to_copy") and len(kinds) == 2:
            self.copies.append((self._on, self._clocks[STEPS][STEPS]))
            if not (keys.get("non_blocking") or (len(args) > 2 and args[2])):
                self.waited()

    def touched(self, read: Sequence[Tensor], written: Sequence[Tensor]) -> None:
        """Tensors that are read and written together."""
        if not self.watching:
            return
        on = self._on if any(tensor.is_cuda for tensor in (*read, *written)) else HOST
        own = self.known(on) if on != HOST else self._clocks[HOST]
        for tensor, writes in (*((one, False) for one in read), *((one, True) for one in written)):
            storage = tensor.untyped_storage()
            for before in (self._writes, self._reads) if writes else (self._writes,):
                self._check(
                    before.get(storage._cdata, {}), own, f"{on} {'writes' if writes else 'reads'} {tensor.shape}"
                )
        self._clocks[on][on] = time = self._clocks[on].get(on, 0) + 1
        for tensor, table in (*((one, self._reads) for one in read), *((one, self._writes) for one in written)):
            storage = tensor.untyped_storage()
            if storage._cdata not in table:
                weakref.finalize(storage, table.pop, storage._cdata, None)
            table.setdefault(storage._cdata, {})[on] = time

    def _check(self, before: Clock, own: Clock, what: str) -> None:
        unknown = [other for other, time in before.items() if own.get(other, 0) < time]
        if unknown:
            self.races.append(f"{what} before {', '.join(unknown)} was done")

    def _stream(self, device: torch.device | None = None) -> Stream:
        name = f"stream {len(self._clocks)}"
        self._clocks[name] = {name: 0}
        return Stream(self, name)

    @contextmanager
    def _with(self, stream: Stream) -> Iterator[None]:
        before, self._on = self._on, stream.name
        try:
            yield
        finally:
            self._on = before

    def _everything(self) -> None:
        for name in self._clocks:
            self.learn(HOST, self.known(name))


def _tensors(values: Any) -> list[Tensor]:
    return [one for one in tree_flatten(values)[0] if isinstance(one, Tensor)]
