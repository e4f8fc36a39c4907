"""The thread pool: a record that executes other records on several threads, without OpenMP, Numba or the GIL.

Record `parallel`: [kernel, count, first, pool, 0, 0, 0, 0] executes the `count` ordinary records that lie at address `first`, in
any order, and returns when all are done. They must not write what another one of them reads or writes. `pool` is `address()`.

The thread that meets the record publishes it as a ticket (number of the job, tasks left) and takes tasks itself; workers take
tasks by exchanging the ticket for one with a task less, so nobody can take a task of a job that is over. A job that finds the
pool taken (by an outer job, or by another Python thread) runs serially in its own thread: same records, same result.
Workers are the C library's threads, made by the first job that wants them; they know nothing of Python. An idle worker looks
at the ticket for about 200 µs and then sleeps until a job wakes it up. Where there are no POSIX threads, all jobs are serial.
"""

import atexit
import ctypes
import os
import signal
import time
from functools import lru_cache
from typing import Any

import numpy as np

from .build import build, doorway, forever

MOST = 256  # threads
IDLE = 200e-6  # seconds that an idle worker looks for work before it sleeps

# The pool's words; what different threads write lies on cache lines of its own.
TICKET, FIRST, COUNT = 0, 1, 2  # the present job: its number and the tasks left, its records
DONE = 8  # tasks of it that are done
TAKEN = 16  # whether a job is on
SLEEPING = 24  # workers that have to be woken up
THREADS, STARTED, STOPPED, SPINS, WORKER = 32, 33, 34, 35, 36
CREATE, LOCK, UNLOCK, WAIT, WAKE, YIELD, MASK, SET_MASK = 40, 41, 42, 43, 44, 45, 46, 47  # functions of the C library
MUTEX, CONDITION, SIGNALS = 48, 64, 80  # the C library's objects
IDS = 96  # the workers' pthread_t
RECORDS = IDS + MOST  # a worker's record: the pool's address, its own number
SHIFT, TASKS = 24, (1 << 24) - 1  # the ticket's low bits are the tasks left

_HEAD = """
from numba import njit
from fastgrad.kernels.native import (
    atomic_add, atomic_load, atomic_store, atomic_swap, call_0, call_1, call_2, call_3, call_4, call_kernel, int64_at, pause
)
from fastgrad.kernels.pool import (
    CONDITION, COUNT, CREATE, DONE, FIRST, IDS, LOCK, MASK, MUTEX, RECORDS, SET_MASK, SHIFT, SIGNALS, SLEEPING, SPINS, STARTED,
    STOPPED, TAKEN, TASKS, THREADS, TICKET, UNLOCK, WAIT, WAKE, WORKER, YIELD
)

@njit
def work(pool):
    # Take tasks while there are any.
    words = int64_at(pool)
    while True:
        ticket = atomic_load(pool + 8 * TICKET)
        left = ticket & TASKS
        if left == 0:
            return
        if atomic_swap(pool + 8 * TICKET, ticket, ticket - 1):
            record = words[FIRST] + 64 * (words[COUNT] - left)
            call_kernel(int64_at(record)[0], record)
            atomic_add(pool + 8 * DONE, 1)
"""

_WORKER = f"""{_HEAD}
@njit
def wanted(pool, number):
    if atomic_load(pool + 8 * STOPPED) != 0:
        return True
    return atomic_load(pool + 8 * TICKET) & TASKS != 0 and number < atomic_load(pool + 8 * THREADS) - 1

def kernel(record):
    pool, number = record[0], record[1]
    words = int64_at(pool)
    call_3(words[MASK], words[SET_MASK], pool + 8 * SIGNALS, 0)  # signals are the Python threads' business
    while atomic_load(pool + 8 * STOPPED) == 0:
        spins = words[SPINS]
        while spins > 0 and not wanted(pool, number):
            pause()
            spins -= 1
        if spins == 0:
            call_1(words[LOCK], pool + 8 * MUTEX)
            atomic_add(pool + 8 * SLEEPING, 1)
            while not wanted(pool, number):
                call_2(words[WAIT], pool + 8 * CONDITION, pool + 8 * MUTEX)
            atomic_add(pool + 8 * SLEEPING, -1)
            call_1(words[UNLOCK], pool + 8 * MUTEX)
        if atomic_load(pool + 8 * STOPPED) == 0:
            work(pool)
"""

_PARALLEL = f"""{_HEAD}
@njit
def start(pool, words):
    # As many workers as are wanted; fewer if the system refuses.
    while words[STARTED] < words[THREADS] - 1:
        number = words[STARTED]
        record = pool + 8 * (RECORDS + 8 * number)
        int64_at(record)[0], int64_at(record)[1] = pool, number
        if call_4(words[CREATE], pool + 8 * (IDS + number), 0, words[WORKER], record) & 0xFFFFFFFF != 0:
            words[THREADS] = number + 1
            return
        words[STARTED] = number + 1

@njit
def job(pool, words, count, first):
    if words[STARTED] < words[THREADS] - 1:
        start(pool, words)
    words[FIRST], words[COUNT] = first, count
    atomic_store(pool + 8 * DONE, 0)
    atomic_store(pool + 8 * TICKET, (((atomic_load(pool + 8 * TICKET) >> SHIFT) + 1) & 0xFFFFFFFF) << SHIFT | count)
    if atomic_load(pool + 8 * SLEEPING) > 0:
        call_1(words[LOCK], pool + 8 * MUTEX)
        call_1(words[WAKE], pool + 8 * CONDITION)
        call_1(words[UNLOCK], pool + 8 * MUTEX)
    work(pool)
    waited = 0
    while atomic_load(pool + 8 * DONE) != count:
        pause()
        waited += 1
        if waited > words[SPINS]:  # the one who has the last task may be waiting for this CPU
            call_0(words[YIELD])

def kernel(record):
    count, first, pool = record[1], record[2], record[3]
    words = int64_at(pool)
    parallel = count > 1 and count <= TASKS and words[THREADS] > 1 and words[STOPPED] == 0
    if parallel and atomic_swap(pool + 8 * TAKEN, 0, 1):
        job(pool, words, count, first)
        atomic_store(pool + 8 * TAKEN, 0)
    else:
        for i in range(count):
            call_kernel(int64_at(first + 64 * i)[0], first + 64 * i)
"""

_PAUSES = f"""{_HEAD}
def sweep(count, nothing):
    for i in range(count):
        pause()
    return count
"""


def available() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


_threads = [available()]
_FUNCTIONS = {
    CREATE: "pthread_create", LOCK: "pthread_mutex_lock", UNLOCK: "pthread_mutex_unlock", WAIT: "pthread_cond_wait",
    WAKE: "pthread_cond_broadcast", YIELD: "sched_yield", MASK: "pthread_sigmask",
}  # fmt: skip


class _Pool:
    """The pool's memory, and the C library's functions and objects in it."""

    def __init__(self) -> None:
        memory = forever(np.zeros(RECORDS + 8 * MOST + 8, np.int64))  # workers and records of programs point into it
        skip = -(memory.ctypes.data // 8) % 8
        self.words = memory[skip : skip + RECORDS + 8 * MOST]  # on a cache line
        self.address = int(self.words.ctypes.data)
        self._library = self._find()
        if self._library is not None:
            self.words[WORKER] = build(_WORKER)
            self.words[SPINS] = _spins()
            self.words[SET_MASK] = signal.SIG_SETMASK
            self.words[SIGNALS : SIGNALS + 16] = -1
            self.reset()
            atexit.register(self.stop)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self.reset)
        self.use(_threads[0])

    def _find(self) -> Any:
        """The C library, if it has POSIX threads."""
        if os.name != "posix":
            return None
        try:
            library = ctypes.CDLL(None)
            for word, name in _FUNCTIONS.items():
                self.words[word] = ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
            return library
        except (OSError, AttributeError):
            return None

    def _at(self, word: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.address + 8 * word)

    def reset(self) -> None:
        """No job and no worker: at first, and in a forked child, which has none of its parent's threads."""
        for word in (TICKET, DONE, TAKEN, SLEEPING, STARTED, STOPPED):
            self.words[word] = 0
        self._library.pthread_mutex_init(self._at(MUTEX), None)
        self._library.pthread_cond_init(self._at(CONDITION), None)

    def use(self, n: int) -> None:
        """Let jobs run on n threads, the calling one among them."""
        self.words[THREADS] = min(n, MOST) if self._library is not None else 1

    def stop(self) -> None:
        """End the workers: machine code must not go away under them when the interpreter ends."""
        self.words[STOPPED] = 1
        library = self._library
        library.pthread_mutex_lock(self._at(MUTEX))
        library.pthread_cond_broadcast(self._at(CONDITION))
        library.pthread_mutex_unlock(self._at(MUTEX))
        for i in range(int(self.words[STARTED])):
            library.pthread_join(ctypes.c_void_p(int(self.words[IDS + i])), None)
        self.words[STARTED] = 0


def _spins() -> int:
    """How many looks at the ticket IDLE seconds are."""
    wait, count = doorway(build(_PAUSES), "pauses"), 200
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        wait(count, 0)
        best = min(best, time.perf_counter() - start)
    return max(int(count * IDLE / max(best, 1e-9)), 1)


@lru_cache(maxsize=1)
def _pool() -> _Pool:
    return _Pool()


def address() -> int:
    """The address of the pool, word 3 of a parallel record. It stays, also in a forked child."""
    return _pool().address


def parallel() -> int:
    """The address of the kernel that executes records on the pool."""
    return build(_PARALLEL)


def threads() -> int:
    """How many threads a job may use."""
    return _threads[0]


def set_threads(n: int) -> None:
    """Let jobs use n threads, the calling one among them."""
    _threads[0] = n
    if _pool.cache_info().currsize:
        _pool().use(n)
