"""Whole epochs in one call: the driver gathers the rows of a batch, runs the records of its step, writes the loss down, goes on.

It is a sweep over batches as `sweep` is one over records, and knows no operations either. `Compiled.loop` fills in int64 tables:

control   what is to be done and how far it is: the words ROWS ... TURN below. SHUFFLER is the address of the record of a
          permutation (or 0), ORDER that of the rows' order (0: as they lie), STATES that of the random generators' counters.
inputs    INPUT words an array: its first row's address, bytes from row to row, bytes of a row, a buffer for a batch's rows
          (0: nothing is gathered, the program reads the rows where they lie), and the largest word rows can be copied by.
bases     addresses that differ from batch to batch: one an input, then those of gradients.
plans     PLAN words a program that a batch may run, for batches of full size and for a last short one. Several programs for
          one size differ in the guards they expect; the first whose guards hold is run. Their tables:
  moves     (address of a word, number of a base, offset): words that are set to base + offset before each run
  counters  (address of a cell, number of a generator, offset): where a program reads a random generator's counter
  guards    (address, bytes, outcome): bytes is negative for floating point, in which -0.0 is false
  advance   by how much a run moves each generator's counter
  turns     (read, written, spare): bases of a gradient's memory, which change places after each run

The driver stops in front of a batch that has no plan, whose guards differ from all plans', or which reports an error: nothing
of that batch has landed, and Python decides about it.
"""

from collections.abc import Callable
from functools import lru_cache

from .build import build, doorway

(ROWS, SIZE, BATCHES, EPOCHS, EPOCH, BATCH, ORDERED, ORDER, SHUFFLER, SHUFFLED, LOSSES, LOSS_BYTES, INPUTS, INPUT_COUNT, BASES,
 STATES, STATE_COUNT, FULL, FULL_COUNT, SHORT, SHORT_COUNT, TURN) = range(22)  # fmt: skip
CONTROL = 22
SOURCE, STRIDE, BYTES, BUFFER, GRAIN = range(5)
INPUT = 5
(PROGRAM, COUNT, SPLIT, ERROR, GUARDS, GUARD_COUNT, MOVES, MOVE_COUNT, COUNTERS, COUNTER_COUNT, ADVANCE, LOSS, TURNS, TURN_COUNT,
 RUNS, LAST) = range(16)  # fmt: skip
PLAN = 16
HELD, DIFFERS, FAILED = range(3)
AHEAD, NEAR = 16, 1 << 20  # rows in random order are asked for so many rows ahead in arrays of more bytes

_SOURCE = """
from numba import njit, uintp
from fastgrad.kernels.epochs import *
from fastgrad.kernels.native import call_kernel, int32_at, int64_at, prefetch, uint8_at

compiled = njit(error_model="numpy")

@compiled
def run(first, count):
    for i in range(count):
        record = first + 64 * i
        call_kernel(int64_at(record)[0], record)

@compiled
def row_of(order, place):
    return int64_at(order)[place] if order != 0 else place

@compiled
def copy_rows(words, order, start, rows, ahead):
    source, stride, size, target = words[SOURCE], words[STRIDE], words[BYTES], words[BUFFER]
    if words[GRAIN] == 8:
        size >>= 3
        if size == 1:
            y = int64_at(target)
            for i in range(rows):
                y[i] = int64_at(source + row_of(order, start + i) * stride)[0]
            return
        if size == 4 and ahead == 0:
            for i in range(rows):
                near, far = int64_at(source + row_of(order, start + i) * stride), int64_at(target + 32 * i)
                far[0], far[1], far[2], far[3] = near[0], near[1], near[2], near[3]
            return
        for i in range(rows):
            if ahead != 0:  # ask for a row that comes soon
                soon = source + row_of(order, start + min(i + ahead, rows - 1)) * stride
                for line in range(0, min(8 * size, 256), 64):
                    prefetch(soon + line)
            a, y = source + row_of(order, start + i) * stride, target + 8 * size * i
            for _ in range(size >> 3):
                near, far = int64_at(a), int64_at(y)
                far[0], far[1], far[2], far[3], far[4], far[5], far[6], far[7] = (
                    near[0], near[1], near[2], near[3], near[4], near[5], near[6], near[7]
                )
                a, y = a + 64, y + 64
            near, far = int64_at(a), int64_at(y)
            rest = size & 7
            if rest & 4:
                far[0], far[1], far[2], far[3] = near[0], near[1], near[2], near[3]
                near, far = int64_at(a + 32), int64_at(y + 32)
            for j in range(rest & 3):
                far[j] = near[j]
    elif words[GRAIN] == 4:
        size >>= 2
        if size == 1:
            y = int32_at(target)
            for i in range(rows):
                y[i] = int32_at(source + row_of(order, start + i) * stride)[0]
            return
        for i in range(rows):
            a, y = int32_at(source + row_of(order, start + i) * stride), int32_at(target + 4 * size * i)
            for j in range(uintp(size)):
                y[j] = a[j]
    else:
        for i in range(rows):
            a, y = uint8_at(source + row_of(order, start + i) * stride), uint8_at(target + size * i)
            for j in range(uintp(size)):
                y[j] = a[j]

@compiled
def truth(address, size):
    if size == 1:
        return uint8_at(address)[0] != 0
    if size == 4:
        return int32_at(address)[0] != 0
    if size == 8:
        return int64_at(address)[0] != 0
    if size == -4:
        return (int32_at(address)[0] & 0x7FFFFFFF) != 0
    return (int64_at(address)[0] & 0x7FFFFFFFFFFFFFFF) != 0

@compiled
def attempt(p, bases, states):
    moves, counters, guards = int64_at(p[MOVES]), int64_at(p[COUNTERS]), int64_at(p[GUARDS])
    for i in range(p[MOVE_COUNT]):
        int64_at(moves[3 * i])[0] = bases[moves[3 * i + 1]] + moves[3 * i + 2]
    for i in range(p[COUNTER_COUNT]):
        int64_at(counters[3 * i])[0] = states[counters[3 * i + 1]] + counters[3 * i + 2]
    run(p[PROGRAM], p[SPLIT])
    if p[ERROR] != 0:
        error = int64_at(p[ERROR])
        if error[0] != 0:
            error[0] = error[1] = error[2] = 0
            return FAILED
    for i in range(p[GUARD_COUNT]):
        if truth(guards[3 * i], guards[3 * i + 1]) != (guards[3 * i + 2] != 0):
            return DIFFERS
    run(p[PROGRAM] + 64 * p[SPLIT], p[COUNT] - p[SPLIT])
    return HELD

def sweep(control, limit):
    c = int64_at(control)
    bases, states, order = int64_at(c[BASES]), int64_at(c[STATES]), c[ORDER]
    done = 0
    while done < limit and c[EPOCH] < c[EPOCHS]:
        if c[SHUFFLER] != 0 and c[ORDERED] != c[EPOCH]:
            call_kernel(int64_at(c[SHUFFLER])[0], c[SHUFFLER])
            states[c[SHUFFLED]] += c[ROWS]
            c[ORDERED] = c[EPOCH]
        start = c[BATCH] * c[SIZE]
        rows = min(c[SIZE], c[ROWS] - start)
        plans, count = (c[FULL], c[FULL_COUNT]) if rows == c[SIZE] else (c[SHORT], c[SHORT_COUNT])
        if count > 0:
            for k in range(c[INPUT_COUNT]):
                words = int64_at(c[INPUTS] + 8 * INPUT * k)
                if words[BUFFER] == 0:
                    bases[k] = words[SOURCE] + start * words[STRIDE]
                else:
                    far = order != 0 and abs(words[STRIDE]) * c[ROWS] > NEAR
                    copy_rows(words, order, start, rows, AHEAD if far else 0)
        outcome, chosen = DIFFERS, 0
        while chosen < count:
            outcome = attempt(int64_at(plans + 8 * PLAN * chosen), bases, states)
            if outcome != DIFFERS:
                break
            chosen += 1
        if outcome != HELD:
            break
        p = int64_at(plans + 8 * PLAN * chosen)
        place = c[EPOCH] * c[BATCHES] + c[BATCH]
        if c[LOSS_BYTES] == 4:
            int32_at(c[LOSSES])[place] = int32_at(p[LOSS])[0]
        elif c[LOSS_BYTES] == 8:
            int64_at(c[LOSSES])[place] = int64_at(p[LOSS])[0]
        else:
            uint8_at(c[LOSSES])[place] = uint8_at(p[LOSS])[0]
        advance, turns = int64_at(p[ADVANCE]), int64_at(p[TURNS])
        for g in range(c[STATE_COUNT]):
            states[g] += advance[g]
        for i in range(p[TURN_COUNT]):
            read, written, spare = turns[3 * i], turns[3 * i + 1], turns[3 * i + 2]
            bases[read] = bases[written]
            bases[written] = bases[spare]
            bases[spare] = bases[read]
        c[TURN] += 1
        p[RUNS] += 1
        p[LAST] = c[TURN]
        c[BATCH] += 1
        if c[BATCH] == c[BATCHES]:
            c[BATCH] = 0
            c[EPOCH] += 1
        done += 1
    return done
"""


@lru_cache(maxsize=1)
def driver() -> Callable[[int, int], int]:
    """The compiled driver: `driver()(address of the control words, batches at most)` returns the batches done."""
    return doorway(build(_SOURCE), "epochs")
