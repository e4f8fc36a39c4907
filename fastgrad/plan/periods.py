"""Where a section repeats: the order in which that shows, candidates for periods, and the stretches that have one.

A window of entries that comes back tells a distance; entry k repeats at the distance p if it has the signature of entry k - p and
its operands have moved by as much as those of k - p since k - 2p. Runs of such entries, with the two periods before them, are
the regions that `roll` looks at. All of it works on whole arrays (`columns`), so that the time grows with their length only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .columns import Columns

SHORTEST = 4  # iterations below which a loop is not worth one
GAIN = 32  # entries that a loop must save
CANDIDATES = 12  # candidates for a period that are tried, for each width of the window that looks for them


def early(c: Columns) -> Any:
    """An order in which what belongs to an iteration stands in it. What takes two values and is the only reader of both stands
    behind the younger one: parts of a gradient are added up as they come, and not at the end. Views stand before their first
    reader, which may be an iteration of another loop than the one that computes what they show."""
    n = len(c.slots)
    single = c.readers() == 1
    place = list(range(n))
    a, b = [np.where(c.inputs_read[:, m] == 0, c.reference[:, m], 0) for m in (0, 1)]
    pairs = c.elementwise & c.executed & (c.inputs_read[:, :2] == 0).all(axis=1) & (c.inputs_read[:, 2] < 0)
    chosen = np.flatnonzero(pairs & single[a] & single[b] & (c.size[a] == c.size) & (c.size[b] == c.size))
    for k, x, y in zip(chosen.tolist(), a[chosen].tolist(), b[chosen].tolist(), strict=True):
        place[k] = max(place[x], place[y])
    keys = np.stack((np.array(place), np.arange(n)), axis=1)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    first = np.full(n, n)  # rank of the first reader that is not a view itself
    inside = c.inputs_read == 0
    reading = inside & c.executed[:, None]
    np.minimum.at(first, c.reference[reading], np.broadcast_to(rank[:, None], reading.shape)[reading])
    ranks, firsts = rank.tolist(), first.tolist()
    for k in np.flatnonzero(~c.executed)[::-1].tolist():
        at = ranks[k] = min(firsts[k], n)
        for x in c.reference[k][inside[k]].tolist():
            firsts[x] = min(firsts[x], at)
    return np.lexsort((np.arange(n), c.executed, np.array(ranks)))


def regions(c: Columns) -> list[tuple[int, int, int]]:
    """(start, end, period) of repeating stretches that do not overlap, in order; those that save most are taken first."""
    free = np.ones(len(c.slots), bool)
    candidates = {p: _repeats(c, p) for p in _periods(c)}
    chosen: list[tuple[int, int, int]] = []
    while True:
        found = []
        for p, repeats in list(candidates.items()):
            runs = [(gain(c, start, end, p), start, end) for start, end in _runs(repeats, free, p)]
            runs = [run for run in runs if run[0] >= GAIN]
            found += [(-saved, p, start, end) for saved, start, end in runs]
            if not runs:
                del candidates[p]
        if not found:
            return sorted(chosen)
        seen = np.zeros(len(c.slots), bool)
        for _, p, start, end in sorted(found):
            if not seen[start:end].any():
                chosen.append((start, end, p))
                free[start:end] = False
            seen[start:end] = True


def gain(c: Columns, start: int, end: int, p: int) -> int:
    """Entries that are saved; views count for nothing."""
    return ((end - start) // p - 1) * int(c.executed[start : start + p].sum())


def _periods(c: Columns) -> list[int]:
    """Distances at which windows of entries come back, the most frequent ones."""
    n = len(c.slots)
    mixed = c.signature.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)
    mixed ^= mixed >> np.uint64(29)
    found: list[int] = []
    for width in (2, 8, 32):
        if n < 2 * width:
            break
        window = np.zeros(n - width + 1, np.uint64)
        for i in range(width):
            window = window * np.uint64(0xD1342543DE82EF95) + mixed[i : i + len(window)]
        order = np.argsort(window, kind="stable")
        same = window[order[1:]] == window[order[:-1]]
        distances = (order[1:] - order[:-1])[same]
        distances, counts = np.unique(distances[distances <= n // SHORTEST], return_counts=True)
        found += distances[np.argsort(-counts, kind="stable")[:CANDIDATES]].tolist()
    return list(dict.fromkeys(found))


def _repeats(c: Columns, p: int) -> Any:
    """Whether each entry does the same as those one and two periods before, operands moving by equal distances."""
    n = len(c.slots)
    result = np.zeros(n, bool)
    if 2 * p >= n:
        return result
    like = c.signature[p:] == c.signature[:-p]
    if int(like.sum()) < GAIN:
        return result
    like &= (c.inputs_read[p:] == c.inputs_read[:-p]).all(axis=1)
    if int(like.sum()) < GAIN:
        return result
    moved = np.where(c.inputs_read[p:] == 0, c.reference[p:] - c.reference[:-p], 0)
    steady = (moved[p:] == moved[:-p]).all(axis=1)
    if c.offsets.shape[1]:
        offsets = c.offsets[p:] - c.offsets[:-p]
        steady &= (offsets[p:] == offsets[:-p]).all(axis=1)
    result[2 * p :] = like[p:] & like[:-p] & steady
    return result


def _runs(repeats: Any, free: Any, p: int) -> list[tuple[int, int]]:
    """Regions of at least SHORTEST periods: runs of repeating entries, with the two periods before each."""
    good = np.concatenate(([0], (repeats & free).astype(np.int8), [0]))
    edges = np.flatnonzero(np.diff(good))
    if not len(edges):
        return []
    taken = np.concatenate(([0], np.cumsum(~free)))
    runs = []
    before = 0
    for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        start = max(first - 2 * p, before)
        if end - start < SHORTEST * p:
            continue
        if taken[first] != taken[start]:
            start += int(np.flatnonzero(~free[start:first])[-1]) + 1
        if end - start >= SHORTEST * p:
            runs.append((start, end))
            before = end
    return runs
