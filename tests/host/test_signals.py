import os
import signal
import subprocess
import sys
from threading import Thread

import pytest

from sae_sweep.host.signals import SIGNALS, Interrupted, Stop, stopping

TWICE = (
    "import os, sys; from sae_sweep.host.signals import stopping\n"
    "with stopping() as stop, stop.at_once(False):\n"
    "    os.kill(os.getpid(), {0}); print('asked', flush=True); os.kill(os.getpid(), {1}); print('not here')\n"
)


@pytest.mark.parametrize("number", SIGNALS)
def test_what_may_not_be_left_is_left_where_it_polls(number: signal.Signals) -> None:
    with stopping() as stop, stop.at_once(False):
        stop.poll()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as caught:
            stop.poll()
    assert (caught.value.exit_code, caught.value.name) == (128 + number, number.name)


def send_where_it_may_be_left(stop: Stop, passed: list[str]) -> None:
    with stop.at_once():
        os.kill(os.getpid(), signal.SIGTERM)
        passed.append("after the signal")


def enter_what_may_be_left(stop: Stop, passed: list[str]) -> None:
    with stop.at_once():
        passed.append("entered")


def test_what_may_be_left_is_left_at_once() -> None:
    passed: list[str] = []
    with stopping() as stop, stop.at_once(False):
        with pytest.raises(Interrupted):
            send_where_it_may_be_left(stop, passed)
        with pytest.raises(Interrupted):
            enter_what_may_be_left(stop, passed)
    assert passed == []


def test_a_signal_in_what_may_not_be_left_waits_for_a_poll() -> None:
    with stopping() as stop:
        with stop.at_once(), stop.at_once(False):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            stop.poll()


@pytest.mark.parametrize(("first", "second"), [(15, 15), (2, 2), (2, 15), (12, 2)])
def test_a_second_signal_ends_the_process(first: int, second: int) -> None:
    done = subprocess.run([sys.executable, "-c", TWICE.format(first, second)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + second, "asked\n", "")


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with stopping():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_another_thread_has_no_handlers() -> None:
    seen = []

    def work() -> None:
        with stopping() as stop:
            stop.poll()
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
