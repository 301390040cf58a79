"""How a verb ends that is stopped: by Ctrl-C (SIGINT), by systemd (SIGTERM), by a closed terminal (SIGHUP).

A signal raises KeyboardInterrupt in the main thread, which may not see it for long: it is in a library's C code, or
Prefect asks a server again and again that the same signal has ended. So a second thread, which the system itself wakes,
ends the process after `GRACE_SECONDS` whatever the first is at. That is safe: all that is kept is written whole or not
at all, as for a process that is killed.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from pipeline.core.errors import TookTooLong

SIGNALS: Final = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # no SIGHUP on Windows
)
GRACE_SECONDS: Final = 2.0
"""How long the main thread has for its own end: to put a night on record, to tell Prefect's server."""
SENTENCE: Final = "interrupted; nothing is half-written, and --resume goes on from the last finished stage"

_signals: Final[list[int]] = []  # the one that came first; others change nothing
_raised: Final[list[int]] = []  # it, once the main thread has seen it
_terminal: Final[list[int]] = []  # which of stdout and stderr a person looks at
_ends: Final[list[Callable[[], object]]] = []
_told: Final = threading.Lock()


def stop_in_time() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP end this process within `GRACE_SECONDS`; call it in the main thread.

    A signal that the process was started to ignore (nohup, a shell's background job) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is _interrupt:
        return
    ours = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    _terminal[:] = [handle for handle in (1, 2) if os.isatty(handle)]
    wakes, woken = socket.socketpair()
    wakes.setblocking(False)
    threading.Thread(target=_watch, args=(woken, frozenset(ours)), name="stopping", daemon=True).start()
    signal.set_wakeup_fd(wakes.detach(), warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # what is sent to a child is not sent to us
    atexit.register(_leave)  # first, so called last
    for number in ours:
        signal.signal(number, _interrupt)


def leave_to_others() -> None:
    """Signals are Python's own again, for a library that has an end of its own."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def begun() -> bool:
    """Whether the process was told to stop."""
    return bool(_signals)


def exit_code() -> int:
    """What a process that was stopped ends with: 128 and the signal's number; 130 where no signal is known."""
    return 128 + (_signals[0] if _signals else signal.SIGINT)


def at_the_latest(end: Callable[[], object]) -> None:
    """What is called before the process is ended from the second thread, such as the end of a child process."""
    _ends.append(end)


@contextmanager
def at_most(minutes: int, label: str) -> Iterator[None]:
    """What runs in the block, in the main thread, ends within so many minutes; 0 = no limit.

    Raises:
        TookTooLong: it did not. Again each minute, where something in the block takes exceptions for its own.
    """
    if not minutes or threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def late(_: int, __: FrameType | None) -> None:
        raise TookTooLong(f"{label} was at work for {minutes} minutes, which is all that night.stage_minutes allows")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 60.0 * minutes, 60.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tell(sentence: str) -> None:
    """A sentence for a person, on stderr; of a process that was stopped the first one only, from whichever thread."""
    if begun() and not _told.acquire(blocking=False):
        return
    with suppress(OSError, ValueError):  # nobody is there to read it
        print(f"decoct: {sentence}", file=sys.stderr, flush=True)


def _interrupt(number: int, _: FrameType | None) -> None:
    """In the main thread, between two steps of Python: the first signal raises, later ones find the end under way."""
    _begin(number)
    if not _raised:
        _raised.append(number)
        raise KeyboardInterrupt


def _leave() -> None:
    """A process that was stopped does not take its libraries apart: that takes seconds, and no thread could cut it."""
    if begun():
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(exit_code())


def _watch(woken: socket.socket, ours: frozenset[int]) -> None:
    """The second thread: the system writes a byte for each signal, whoever handles it, whatever the main one does."""
    while not begun():
        for number in woken.recv(64):
            if number in ours:
                _begin(number)
    time.sleep(GRACE_SECONDS)
    for end in _ends:
        with suppress(Exception):
            end()
    tell(SENTENCE)
    os._exit(exit_code())


def _begin(number: int) -> None:
    if not _signals:
        _signals.append(number)
        if number == getattr(signal, "SIGHUP", None):
            _let_go()


def _let_go() -> None:
    """The terminal is gone: what is written to it would fail, and its failure be taken for the stage's."""
    null = os.open(os.devnull, os.O_WRONLY)
    for handle in _terminal:
        os.dup2(null, handle)
    os.close(null)
