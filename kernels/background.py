"""Kernels compiled in another process, while this one goes on.

Compiling takes a tenth of a second to a second, with the interpreter lock held. `request(source, done)` has it done by a helper
process (`python -m fastgrad.kernels.background`) that answers with object code, which it also leaves in the kernel cache; a
thread of this process waits for the answer, links it and calls `done(address)`. The helper ends when it has had nothing
to do for a while, and with this process. What could not be compiled, and why, is in `failures`.
"""

from __future__ import annotations

import atexit
import base64
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import build

IDLE = 30.0  # seconds without work after which the helper ends
ENDING = 5.0  # seconds that a process which ends waits for the helper's thread at most
LIMIT = 2000  # kernels that one process has compiled for it at most

failures: dict[str, str] = {}  # source -> what went wrong


class _Helper:
    """The thread that waits, and the process that it talks to."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.work: queue.Queue[str] = queue.Queue()
        self.waiting: dict[str, list[Callable[[int], None]]] = {}
        self.changed = threading.Condition(self.lock)
        self.thread: threading.Thread | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.asked = 0
        self.ending = False

    def request(self, source: str, done: Callable[[int], None]) -> None:
        with self.lock:
            if source in failures:
                return
            if source in self.waiting:
                self.waiting[source].append(done)
                return
            if self.asked >= LIMIT:
                failures[source] = f"{LIMIT} kernels have been compiled for this process, which is the limit"
                return
            if self.thread is None or not self.thread.is_alive():
                thread = threading.Thread(target=self._run, name="fastgrad kernels", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # the system gives no more threads, or the interpreter is ending
                    failures[source] = str(error)
                    return
                self.thread = thread
            self.asked += 1
            self.waiting[source] = [done]
            self.work.put(source)

    def wait(self, sources: list[str]) -> None:
        """Until all of these have been answered."""
        with self.changed:
            while any([s in self.waiting for s in sources]):
                self.changed.wait()

    def _run(self) -> None:
        while True:
            try:
                source = self.work.get(timeout=IDLE)
            except queue.Empty:
                with self.lock:
                    if self.work.empty():
                        self.thread = None
                        self.stop()
                        return
                continue
            try:
                address = build.adopt(source, self._ask(source))
            except Exception as error:
                self.stop()
                if self.ending:
                    return
                self._answer(source, None, str(error) or type(error).__name__)
            else:
                self._answer(source, address, "")

    def _answer(self, source: str, address: int | None, error: str) -> None:
        with self.changed:
            callbacks = self.waiting.pop(source)
            self.changed.notify_all()
            if address is None:
                failures[source] = error
            else:
                for done in callbacks:
                    done(address)

    def _ask(self, source: str) -> bytes:
        if self.ending:
            raise RuntimeError("the interpreter is ending")
        if self.process is None:
            self.process = _start()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(base64.b64encode(source.encode()) + b"\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process that compiles kernels has ended with status {self.process.wait()}")
        kind, text = answer.split(b" ", 1)
        if kind != b"code":
            raise RuntimeError(base64.b64decode(text).decode())
        return base64.b64decode(text)

    def stop(self) -> None:
        """End the process; a later request starts another."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):  # what was still to be written finds nobody
                        stream.close()
            process.wait()

    def end(self) -> None:
        """End the process for good, and wait until the thread has left machine code alone: the interpreter ends."""
        self.ending = True
        process, thread = self.process, self.thread
        if process is not None:
            process.kill()  # the thread's waiting for an answer is over
        if thread is not None:
            self.work.put("")
            thread.join(ENDING)


def _start() -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise RuntimeError("this interpreter does not know its own executable, so no helper process can be started")
    package = Path(sys.modules[__name__.split(".")[0]].__file__ or "").resolve().parent
    paths = [str(package.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([p for p in paths if p])},
    )  # fmt: skip


_helper = _Helper()


def _end() -> None:
    _helper.end()


def _after_fork() -> None:
    global _helper
    _helper = _Helper()  # the thread and the process are the parent's


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def request(source: str, done: Callable[[int], None]) -> None:
    """Have a kernel compiled; `done` gets its address, in another thread. Nothing happens if it can't be compiled."""
    _helper.request(source, done)


def wait(sources: list[str] | None = None) -> None:
    """Wait until these (or all that have been asked for) have been compiled, or have failed."""
    _helper.wait(list(_helper.waiting) if sources is None else sources)


def main() -> None:
    """The helper: a source a line in, object code a line out."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that trains
    if hasattr(os, "nice"):
        os.nice(5)
    answers: Any = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not spoil the answers
    for line in sys.stdin.buffer:
        try:
            answer = b"code " + base64.b64encode(build.object_code(base64.b64decode(line).decode()))
        except Exception as error:
            answer = b"error " + base64.b64encode(f"{type(error).__name__}: {error}".encode())
        answers.write(answer + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
