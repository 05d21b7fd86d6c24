"""Being told to stop: SIGTERM, SIGINT or SIGUSR2 ends training between two steps, with a checkpoint.

The first signal asks; a second one ends the process at once, but for a worker of a cluster, where several come for one
reason and who means it sends SIGKILL. The exit code is 128 + the signal's number, the shells' habit, which nothing else
here exits with: a script may requeue on 143 or 140. No torch here.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
SHOW_CURSOR = "\x1b[?25h"


class Interrupted(KeyboardInterrupt):
    """The process was told to stop; whoever catches it may tidy up, and raises it again."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def name(self) -> str:
        """Its name, like SIGTERM."""
        return signal.Signals(self.number).name

    @property
    def exit_code(self) -> int:
        """What a process that it stopped ends with: 128 + its number."""
        return 128 + self.number


class Stop:
    """Whether the process was told to stop, and whether that may end what it is doing just now.

    It may not in a step, nor while records are written. `at_once` marks what can be left at any point.
    """

    def __init__(self, once: bool = False) -> None:
        """With `once` the signals after the first change nothing."""
        self._number: int | None = None
        self._at_once = True
        self._once = once

    @property
    def number(self) -> int | None:
        """The signal that has come."""
        return self._number

    def poll(self) -> None:
        """Raises Interrupted where a signal has come."""
        if self._number is not None:
            raise Interrupted(self._number)

    @contextmanager
    def at_once(self, allowed: bool = True) -> Iterator[None]:
        """What may be left at any point, or with `allowed` false what may not but where it polls."""
        before, self._at_once = self._at_once, allowed
        try:
            if allowed:
                self.poll()
            yield
        finally:
            self._at_once = before

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The handler of all signals."""
        if self._number is not None:
            if self._once:
                return
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), SHOW_CURSOR.encode())  # a live display has hidden it
            os._exit(128 + number)
        self._number = number
        if self._at_once:
            raise Interrupted(number)


@contextmanager
def stopping(once: bool = False) -> Iterator[Stop]:
    """Handlers for the signals, until the block ends. Only a process's main thread can have them: elsewhere none."""
    stop = Stop(once)
    if current_thread() is not main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.receive) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
