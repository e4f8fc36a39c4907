"""The compiled passes over a flat tape: the walk that appends adjoint entries, what has to be kept for a later walk, and the
pass that writes records.

A flat tape is int64, ENTRY words an entry: the number of its kind and up to three operands. What a kind is, the caller tells
with tables; nothing here knows an operation. `kinds` holds KIND words a kind:

    0 what it is: LEAF (operand 0 counts the trace's addresses), NUMBER (operand 0 counts cells), FIXED (operand 0 is an
      address), VIEW (operand 0 moved by word 1 bytes), COMPUTED (by records)
    1 bytes: the move of a view, the size of a computed value     2 form     3 whether it has a gradient
    4 its first record in `records`     5 how many records     6 bytes of scratch memory while they run
    7 nothing     8 how many operands
    9 which values its gradient rule reads, one bit each: 1 its own, 2, 4, 8 its operands'
    10 the kind of input that stands for its kept value, 11 that of the memory beneath, if that input is a view of it, else 0

`records` holds RECORD words a record: eight words, and a ninth with four bits for each of them, which say what is added when
the record is written: nothing, the address of the result, of the scratch memory, or of operand 0, 1, 2.

`rules` holds gradient rules, found in `index`, an open table of (key, position): by kind and form of the incoming gradient,
and by two forms for the sum of two parts. A rule is: how many entries, whether it reads saved values, three results (-1
none), then ENTRY words an entry, operands relative: 0 the gradient (or first part), 1 the own value (or second part), 2 to 4
the operands, 5 and up the rule's own entries.

The passes take the address of a block of words with everything in it, write their results there, and return 0, or a
code that asks the caller for something: they go on where they stopped when they are called again.
"""

from collections.abc import Callable
from functools import lru_cache

from .build import build, doorway

ENTRY, KIND, RECORD = 4, 12, 9
LEAF, NUMBER, FIXED, VIEW, COMPUTED = range(5)
Y, SCRATCH, OPERAND = 1, 2, 3  # what is added to a word of a record; OPERAND + i for operand i
DONE, MISSING, FULL, RELEASED, BROKEN = range(5)

_HEAD = """
from fastgrad.kernels.native import int64_at, uint8_at

ENTRY, KIND, RECORD, WORDS = 4, 12, 9, 8
LEAF, NUMBER, FIXED, VIEW, COMPUTED = 0, 1, 2, 3, 4
DONE, MISSING, FULL, RELEASED = 0, 1, 2, 3
"""

# A walk goes over the tape it appends to, or over another one that has run (`past`). A value of that one enters as an input,
# whose address goes to the list `given`; `inside` knows its slot. A part of a slot's gradient is a pair (slot of the value, next part); `first` and `last` hold each slot's list. A slot whose
# rule is missing keeps its list, so the walk can come back to it.
_WALK = (
    _HEAD
    + """
def sweep(block, unused):
    b = int64_at(block)
    entries, kinds, rules, index = int64_at(b[0]), int64_at(b[1]), int64_at(b[2]), int64_at(b[3])
    mask, room = b[4], b[5]
    first, last, parts, part_room = int64_at(b[6]), int64_at(b[7]), int64_at(b[8]), b[9]
    released, passed, sources, fold = uint8_at(b[10]), uint8_at(b[11]), int64_at(b[12]), b[13]
    slot, count, used, found = b[14], b[15], b[16], b[17]
    past, inside, places, given, inputs = int64_at(b[0]), int64_at(b[25]), int64_at(b[26]), int64_at(b[27]), b[28]
    over_past, entered = b[24] != 0, b[29]
    if over_past:
        past = int64_at(b[24])
    if b[22]:  # a new walk: what it starts with
        pairs = int64_at(b[23])
        for i in range(slot + 1):
            first[i] = -1
            if over_past:
                inside[i] = -1
        for i in range(b[22]):
            target = pairs[2 * i]
            parts[2 * used], parts[2 * used + 1] = pairs[2 * i + 1], -1
            if first[target] < 0:
                first[target] = used
            else:
                parts[2 * last[target] + 1] = used
            last[target] = used
            used += 1
        pairs = int64_at(b[31])
        for i in range(b[30]):
            inside[pairs[2 * i]] = pairs[2 * i + 1]
        b[22] = 0
    code = DONE
    while slot >= 0:
        part = first[slot]
        if part < 0:
            slot -= 1
            continue
        kind = past[slot * ENTRY]
        what = kinds[kind * KIND]
        is_source = what == LEAF
        # add the parts up, oldest first
        if not is_source or fold:
            while parts[2 * part + 1] >= 0:
                following = parts[2 * part + 1]
                g, h = parts[2 * part], parts[2 * following]
                x = kinds[entries[g * ENTRY] * KIND + 2]
                y = kinds[entries[h * ENTRY] * KIND + 2]
                key = ((x << 31) | y) << 1 | 1
                at = (key * 11400714819323199) & mask
                while index[2 * at] != key and index[2 * at] != 0:
                    at = (at + 1) & mask
                if index[2 * at] == 0:
                    code, b[18], b[19], b[20] = MISSING, 1, x, y
                    break
                rule = index[2 * at + 1]
                length = rules[rule]
                if count + length > room:
                    code = FULL
                    break
                base = count
                for i in range(length):
                    source = rule + 5 + ENTRY * i
                    target = count * ENTRY
                    made = rules[source]
                    entries[target] = made
                    literal = kinds[made * KIND] == FIXED
                    for j in range(1, ENTRY):
                        word = rules[source + j]
                        if not literal:
                            if word == 0:
                                word = g
                            elif word == 1:
                                word = h
                            elif word >= 5:
                                word += base - 5
                        entries[target + j] = word
                    count += 1
                out = rules[rule + 2]
                parts[2 * part] = base + out - 5 if out >= 5 else (g if out == 0 else h)
                parts[2 * part + 1] = parts[2 * following + 1]
            if code != DONE:
                break
        if is_source:
            while part >= 0:
                sources[2 * found], sources[2 * found + 1] = slot, parts[2 * part]
                found += 1
                part = parts[2 * part + 1]
            first[slot] = -1
            slot -= 1
            continue
        g = parts[2 * part]
        x, y = kind, kinds[entries[g * ENTRY] * KIND + 2]
        key = ((x << 31) | y) << 1
        at = (key * 11400714819323199) & mask
        while index[2 * at] != key and index[2 * at] != 0:
            at = (at + 1) & mask
        if index[2 * at] == 0:
            code, b[18], b[19], b[20] = MISSING, 0, x, y
            break
        rule = index[2 * at + 1]
        length = rules[rule]
        if count + length + 8 > room or used + 3 > part_room:
            code = FULL
            break
        if rules[rule + 1]:
            if released[slot]:
                code = RELEASED
                break
            passed[slot] = 1
        if over_past:
            for i in range(4):
                if (kinds[kind * KIND + 9] >> i) & 1:
                    value = slot if i == 0 else past[slot * ENTRY + i]
                    if inside[value] < 0:
                        made = past[value * ENTRY] * KIND
                        beneath = kinds[made + 11]
                        for j in range(2):
                            if j == 1 or beneath != 0:
                                target = count * ENTRY
                                entries[target] = beneath if j == 0 else kinds[made + 10]
                                entries[target + 1] = inputs + entered
                                entries[target + 2] = count - 1 if beneath != 0 else 0
                                entries[target + 3] = 0
                                given[entered] = places[value]
                                entered += 1
                                count += 1
                        inside[value] = count - 1
        base = count
        for i in range(length):
            source = rule + 5 + ENTRY * i
            target = count * ENTRY
            made = rules[source]
            entries[target] = made
            literal = kinds[made * KIND] == FIXED
            for j in range(1, ENTRY):
                word = rules[source + j]
                if not literal:
                    if word == 0:
                        word = g
                    elif word >= 5:
                        word += base - 5
                    else:
                        word = slot if word == 1 else past[slot * ENTRY + word - 1]
                        if over_past:
                            word = inside[word]
                entries[target + j] = word
            count += 1
        for i in range(3):
            out = rules[rule + 2 + i]
            if out >= 0:
                if out == 0:
                    value = g
                elif out < 5:
                    value = slot if out == 1 else past[slot * ENTRY + out - 1]
                    if over_past:
                        value = inside[value]
                else:
                    value = base + out - 5
                operand = past[slot * ENTRY + 1 + i]
                parts[2 * used], parts[2 * used + 1] = value, -1
                if first[operand] < 0:
                    first[operand] = used
                else:
                    parts[2 * last[operand] + 1] = used
                last[operand] = used
                used += 1
        first[slot] = -1
        slot -= 1
    b[14], b[15], b[16], b[17], b[29] = slot, count, used, found, entered
    return code
"""
)

# What backward walks from the marked slots will read: `reached` is marked from the roots down, `needed` becomes 3 for a value
# that is kept in memory of its own and at least 1 for any other that is read; `saved` is 1 for what is read, 2 where an input's memory holds it. Returns the bytes of the kept ones; the number
# of entries that read any goes to the block.
_KEEP = (
    _HEAD
    + """
def sweep(block, count):
    b = int64_at(block)
    entries, kinds = int64_at(b[0]), int64_at(b[1])
    reached, released, needed, saved = uint8_at(b[2]), uint8_at(b[3]), uint8_at(b[4]), uint8_at(b[5])
    readers, size = 0, 0
    for slot in range(count - 1, -1, -1):
        at = slot * ENTRY
        kind = entries[at] * KIND
        if reached[slot] == 0 or kinds[kind] == LEAF or kinds[kind + 3] == 0:
            continue
        mask = kinds[kind + 9]
        if released[slot] == 0 and mask != 0:
            readers += 1
            for i in range(4):
                if (mask >> i) & 1:
                    value = slot if i == 0 else entries[at + i]
                    read = value
                    saved[read] = 1
                    if needed[value] == 0:
                        needed[value] = 1
                    while kinds[entries[value * ENTRY] * KIND] == VIEW:
                        value = entries[value * ENTRY + 1]
                    owner = entries[value * ENTRY] * KIND
                    if kinds[owner] == LEAF:
                        saved[read] = 2
                    elif kinds[owner] == COMPUTED and needed[value] != 3:
                        needed[value] = 3
                        size += kinds[owner + 1]
        for j in range(kinds[kind + 8]):
            operand = entries[at + 1 + j]
            if kinds[entries[operand * ENTRY] * KIND + 3]:
                reached[operand] = 1
    b[6] = readers
    return size
"""
)

# `uses[root]` counts the readers that are still to come, views looked through; the last one gives the value's memory back to
# the list of its size class. `places[slot]` is a value's address, `needed[slot]` 1 for a value that is computed, 2 for one
# whose memory is given (a result), 3 for one that goes to the memory of kept values.
_LOWER = (
    _HEAD
    + """
def sweep(block, unused):
    b = int64_at(block)
    entries, kinds, templates, count = int64_at(b[0]), int64_at(b[1]), int64_at(b[2]), b[3]
    needed, places, root, uses = uint8_at(b[4]), int64_at(b[5]), int64_at(b[6]), int64_at(b[7])
    addresses, cells = int64_at(b[8]), b[9]
    records, room = int64_at(b[10]), b[11]
    arena, arena_room = b[12], b[13]
    free, chain = int64_at(b[14]), int64_at(b[15])
    for slot in range(count):
        root[slot] = slot
        uses[slot] = 0
        kind = entries[slot * ENTRY] * KIND
        if kinds[kind] == VIEW:
            root[slot] = root[entries[slot * ENTRY + 1]]
    for slot in range(count - 1, -1, -1):
        if needed[slot]:
            kind = entries[slot * ENTRY] * KIND
            what = kinds[kind]
            if what == VIEW:
                operand = entries[slot * ENTRY + 1]
                if needed[operand] == 0:
                    needed[operand] = 1
            elif what == COMPUTED:
                for j in range(kinds[kind + 8]):
                    operand = entries[slot * ENTRY + 1 + j]
                    if needed[operand] == 0:
                        needed[operand] = 1
                    uses[root[operand]] += 1
    for i in range(64):
        free[i] = -1
    written, top, links = 0, 0, 0
    kept = b[19]
    for slot in range(count):
        if needed[slot] == 0:
            continue
        at = slot * ENTRY
        kind = entries[at] * KIND
        what = kinds[kind]
        if what == LEAF:
            places[slot] = addresses[entries[at + 1]]
        elif what == NUMBER:
            places[slot] = cells + 8 * entries[at + 1]
        elif what == FIXED:
            places[slot] = entries[at + 1]
        elif what == VIEW:
            places[slot] = places[entries[at + 1]] + kinds[kind + 1]
        else:
            number = kinds[kind + 5]
            if written + number > room:
                b[16] = written + number
                return FULL
            if needed[slot] == 1:
                size, width = 0, 64
                while width < kinds[kind + 1]:
                    width *= 2
                    size += 1
                link = free[size]
                if link >= 0:
                    places[slot] = chain[2 * link]
                    free[size] = chain[2 * link + 1]
                else:
                    places[slot] = arena + top
                    top += width
            elif needed[slot] == 3:
                places[slot] = kept
                kept += kinds[kind + 1]
            scratch = arena + top
            if kinds[kind + 6] and top + kinds[kind + 6] > arena_room:
                b[17] = max(b[17], top + kinds[kind + 6])
            for i in range(number):
                source = (kinds[kind + 4] + i) * RECORD
                target = (written + i) * WORDS
                tags = templates[source + 8]
                for j in range(WORDS):
                    word = templates[source + j]
                    tag = tags & 15
                    if tag == 1:
                        word += places[slot]
                    elif tag == 2:
                        word += scratch
                    elif tag >= 3:
                        word += places[entries[at + tag - 2]]
                    records[target + j] = word
                    tags >>= 4
            written += number
            for j in range(kinds[kind + 8]):
                home = root[entries[at + 1 + j]]
                uses[home] -= 1
                owner = entries[home * ENTRY] * KIND
                if uses[home] == 0 and needed[home] == 1 and kinds[owner] == COMPUTED:
                    size, width = 0, 64
                    while width < kinds[owner + 1]:
                        width *= 2
                        size += 1
                    chain[2 * links], chain[2 * links + 1] = places[home], free[size]
                    free[size] = links
                    links += 1
    b[16] = written
    b[17] = max(b[17], top)
    if b[17] > arena_room:
        return FULL
    return DONE
"""
)


@lru_cache(maxsize=1)
def walk() -> Callable[[int, int], int]:
    """The walk from roots to sources: `walk()(address of its block, 0)`, one of DONE, MISSING, FULL, RELEASED."""
    return doorway(build(_WALK), "walk")


@lru_cache(maxsize=1)
def keep() -> Callable[[int, int], int]:
    """What is kept for later walks: `keep()(address of its block, entries)`, the bytes that takes."""
    return doorway(build(_KEEP), "keep")


@lru_cache(maxsize=1)
def lower() -> Callable[[int, int], int]:
    """The pass that writes records: `lower()(address of its block, 0)`, DONE or FULL."""
    return doorway(build(_LOWER), "lower")
