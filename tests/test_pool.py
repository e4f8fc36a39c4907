"""The thread pool: every task once, whoever asks for it, in whatever process."""

from __future__ import annotations

import os
import textwrap
import threading
import time
from typing import Any

import numpy as np
import pytest

import fastgrad
from fastgrad.kernels import pool
from fastgrad.kernels.build import build
from fastgrad.kernels.sweep import WORDS, sweep

ADD = """
from fastgrad.kernels.native import int64_at
def kernel(record):
    int64_at(record[1])[0] += record[2]
"""
# Counts the tasks that are inside, and waits until there are as many as it wants or its patience ends.
MEET = """
from fastgrad.kernels.native import atomic_add, atomic_load, pause
def kernel(record):
    atomic_add(record[1], 1)
    patience = record[3]
    while patience > 0 and atomic_load(record[1]) < record[2]:
        pause()
        patience -= 1
"""


def records(rows: list[list[int]]) -> np.ndarray:
    table = np.zeros((len(rows), WORDS), np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table


def job(tasks: np.ndarray) -> list[int]:
    """The parallel record over tasks, which must outlive it."""
    return [pool.parallel(), len(tasks), tasks.ctypes.data, pool.address()]


def run(rows: list[list[int]]) -> None:
    program = records(rows)
    sweep()(program.ctypes.data, len(program))


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
def test_every_task_is_done_once(threads: int, count: int) -> None:
    fastgrad.set_num_threads(threads)
    cells = np.zeros((count + 1, 8), np.int64)
    tasks = records([[build(ADD), cells.ctypes.data + 64 * i, i + 1] for i in range(count)])
    run([job(tasks)] * 300)
    assert cells[:count, 0].tolist() == [300 * (i + 1) for i in range(count)]


def test_tasks_run_at_the_same_time() -> None:
    fastgrad.set_num_threads(3)
    inside = np.zeros(1, np.int64)
    tasks = records([[build(MEET), inside.ctypes.data, 3, 2_000_000_000]] * 3)
    run([job(tasks)])  # would take minutes if one task had to end before the next begins
    assert inside[0] == 3


def test_one_thread_runs_tasks_in_order() -> None:
    fastgrad.set_num_threads(1)
    inside = np.zeros(1, np.int64)
    text = """
from fastgrad.kernels.native import int64_at
def kernel(record):
    int64_at(record[1])[0] = int64_at(record[1])[0] * 10 + record[2]
"""
    tasks = records([[build(text), inside.ctypes.data, i] for i in range(1, 8)])
    run([job(tasks)])
    assert inside[0] == 1234567


def test_a_job_inside_of_a_job_is_serial() -> None:
    fastgrad.set_num_threads(2)
    cells = np.zeros((16, 8), np.int64)
    inner = [records([[build(ADD), cells.ctypes.data + 64 * (4 * i + k), 1] for k in range(4)]) for i in range(4)]
    outer = records([job(tasks) for tasks in inner])
    run([job(outer)] * 200)
    assert cells[:, 0].tolist() == [200] * 16


def test_python_threads_share_the_pool() -> None:
    fastgrad.set_num_threads(2)
    cells = np.zeros((4, 32, 8), np.int64)

    def work(mine: np.ndarray) -> None:
        tasks = records([[build(ADD), mine.ctypes.data + 64 * i, 1] for i in range(32)])
        for _ in range(20):
            run([job(tasks)] * 100)

    threads = [threading.Thread(target=work, args=(cells[i],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (cells[:, :, 0] == 2000).all()


def test_workers_that_went_to_sleep_are_woken() -> None:
    fastgrad.set_num_threads(2)
    meet = np.zeros(1, np.int64)
    tasks = records([[build(MEET), meet.ctypes.data, 2, 2_000_000_000]] * 2)
    for _ in range(5):
        meet[0] = 0
        run([job(tasks)])
        assert meet[0] == 2
        words = pool._pool().words
        while words[pool.SLEEPING] < words[pool.STARTED]:
            time.sleep(0.001)


def test_fewer_threads_leave_the_others_idle() -> None:
    fastgrad.set_num_threads(4)
    meet = np.zeros(1, np.int64)
    tasks = records([[build(MEET), meet.ctypes.data, 4, 2_000_000_000]] * 4)
    run([job(tasks)])
    assert meet[0] == 4
    fastgrad.set_num_threads(2)
    seen = np.zeros(1, np.int64)
    text = """
from fastgrad.kernels.native import atomic_add, atomic_load, int64_at, pause
def kernel(record):
    here = atomic_add(record[1], 1) + 1
    if here > int64_at(record[2])[0]:
        int64_at(record[2])[0] = here
    for i in range(record[3]):
        pause()
    atomic_add(record[1], -1)
"""
    inside = np.zeros(1, np.int64)
    tasks = records([[build(text), inside.ctypes.data, seen.ctypes.data, 20_000]] * 16)
    run([job(tasks)])
    assert seen[0] <= 2


def test_a_number_below_one_is_refused() -> None:
    with pytest.raises(RuntimeError, match="positive"):
        fastgrad.set_num_threads(0)


PROGRAM = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np
import fastgrad
from fastgrad.kernels import pool
from fastgrad.kernels.build import build
from fastgrad.kernels.sweep import sweep
ADD = '''
from fastgrad.kernels.native import int64_at
def kernel(record):
    int64_at(record[1])[0] += record[2]
'''
cells = np.zeros((64, 8), np.int64)
tasks = np.zeros((64, 8), np.int64)
tasks[:, 0], tasks[:, 1], tasks[:, 2] = build(ADD), cells.ctypes.data + 64 * np.arange(64), 1
main = np.array([[pool.parallel(), 64, tasks.ctypes.data, pool.address(), 0, 0, 0, 0]] * 100)
run = lambda: sweep()(main.ctypes.data, 100)
fastgrad.set_num_threads(3)
"""


def test_the_interpreter_ends_while_workers_spin(python: Any) -> None:
    for _ in range(5):
        assert python(PROGRAM + "run(); print(cells[:, 0].sum())").stdout == "6400\n"


def test_the_interpreter_ends_while_a_daemon_thread_computes(python: Any) -> None:
    source = PROGRAM + textwrap.dedent("""
    def forever():
        while True:
            run()
    threading.Thread(target=forever, daemon=True).start()
    while cells[0, 0] == 0:
        pass
    print("done")
    """)
    assert python(source).stdout == "done\n"


def test_the_pool_does_without_numba(python: Any) -> None:
    python(PROGRAM + "run()")  # fills the cache
    source = PROGRAM + "run(); print('numba' in sys.modules, fastgrad.stats()['kernels compiled'])"
    assert python(source).stdout == "False 0\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_workers_of_its_own(python: Any) -> None:
    source = PROGRAM + textwrap.dedent("""
    stop = threading.Event()
    other = tasks.copy()
    main2 = main.copy()
    spare = np.zeros((64, 8), np.int64)
    other[:, 1] = spare.ctypes.data + 64 * np.arange(64)
    main2[:, 2] = other.ctypes.data
    def work():
        while not stop.is_set():
            sweep()(main2.ctypes.data, 100)
    thread = threading.Thread(target=work)
    thread.start()
    run()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            cells[:] = 0
            run()
            workers = int(pool._pool().words[pool.STARTED])
            os._exit(0 if cells[:, 0].sum() == 6400 and workers == 2 else 1)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    thread.join()
    cells[:] = 0
    run()
    print(cells[:, 0].sum())
    """)
    assert python(source).stdout == "6400\n"
