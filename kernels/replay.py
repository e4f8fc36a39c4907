"""The quick way into a compiled step: one compiled function that interprets a table of checks and bindings.

A replay of `compile` looks at some forty things that must be as they were (names, options, gradients, memory) and binds what
has moved. Each is a row of a table; `step` goes through the rows, sweeps the program and hands results over, without running
any bytecode. It holds the GIL, except in the sweep of a program that is worth letting go of it. Numba compiles this file once a
machine; `entrance.py` has the layouts of tables and facts (words of int64) and the way in.

Objects are read at the addresses of their slots. An address in a row belongs to an object that the table keeps alive, and what
is found there is only compared, or its type is looked at before it is read. References are owned from the moment on at which
other code may run: the table (it may be dropped meanwhile), the results, and during a sweep without the GIL the inputs' memory.
A row that does not hold is a miss: nothing has happened but bindings, which are true, and Python decides.
"""

from numba import float32, float64
from numba.extending import register_jitable

from . import entrance as at
from .native import call_0, call_1, call_2, call_3, call_4, float32_at, float64_at, float64_of_bits, int32_at, int64_at


@register_jitable
def load(address):
    """The word at an address."""
    return int64_at(address)[0]


@register_jitable
def length(facts, things):
    """The number of items in a list."""
    return load(things + facts[at.LIST_LENGTH])


@register_jitable
def item(facts, things, i):
    """An item of a list, borrowed."""
    return load(load(things + facts[at.LIST_ITEMS]) + 8 * i)


@register_jitable
def references(thing):
    """The reference count of an object: its low half, because Python 3.14 keeps flags in the other."""
    return int32_at(thing)[0]


@register_jitable
def bind(address, uses, count):
    """Write an address, with an offset each, into the words that name it; whether it had moved."""
    use = int64_at(uses)
    if count == 0 or load(use[0]) == address + use[1]:
        return False
    for i in range(count):
        int64_at(use[2 * i])[0] = address + use[2 * i + 1]
    return True


@register_jitable
def convert(value, cells, count):
    """Write a number into cells of eight or four bytes; whether one of them has changed."""
    cell = int64_at(cells)
    changed = False
    for i in range(count):
        place = cell[2 * i]
        if cell[2 * i + 1] == 8:
            double_before = load(place)
            float64_at(place)[0] = value
            changed = changed or load(place) != double_before
        else:
            single_before = references(place)
            float32_at(place)[0] = float32(value)
            changed = changed or references(place) != single_before
    return changed


@register_jitable
def entry(facts, mapping, key):
    """What a dict holds under a key, borrowed; 0 if nothing."""
    found = call_2(facts[at.GET_ENTRY], mapping, key)
    if found == 0:
        call_0(facts[at.CLEAR])
    return found


@register_jitable
def memory(facts, tensor):
    """The storage of a tensor, if it has one that is filled; else 0."""
    storage = load(tensor + facts[at.STORAGE])
    if storage == 0 or load(storage + facts[at.TYPE]) != facts[at.STORAGE_TYPE]:
        return 0
    array = load(storage + facts[at.ARRAY])
    return 0 if array == 0 or array == facts[at.NONE] else storage


@register_jitable
def ours(facts, mark, own):
    """Whether no other trace has a write pending, by the mark on a storage."""
    return mark == own or mark == facts[at.NONE]


@register_jitable
def unused(facts, tensor, row):
    """The storage of a former result that nobody else holds and that is as it was; else 0."""
    held = facts[at.FREE_TENSOR]
    if row[3] != 0 and load(row[3]) == tensor:  # a gradient is held by its leaf, too
        held += 1
    if references(tensor) > held or load(tensor + facts[at.META]) != row[2]:
        return 0
    if load(tensor + facts[at.WHOLE]) != facts[at.TRUE] or load(tensor + facts[at.GRADIENT]) != facts[at.NONE]:
        return 0
    storage = memory(facts, tensor)
    if storage == 0 or references(storage) > facts[at.FREE_STORAGE]:
        return 0
    if references(load(storage + facts[at.ARRAY])) > facts[at.FREE_ARRAY]:
        return 0
    if load(storage + facts[at.SAVERS]) != facts[at.NONE] or load(storage + facts[at.SHARED]) != facts[at.FALSE]:
        return 0
    return storage


@register_jitable
def bind_arena(facts, table, storage, needed, uses, count):
    """Where temporaries go; False if that is too small."""
    if load(storage + facts[at.TYPE]) != facts[at.STORAGE_TYPE]:
        return False
    if call_1(facts[at.TO_INT], load(storage + facts[at.BYTES])) < needed:
        return False
    if bind(call_1(facts[at.TO_INT], load(storage + facts[at.ADDRESS])), uses, count):
        table[at.DIRTY] = 1
    return True


@register_jitable
def first_items(facts, row):
    """Whether a list has the items that it had."""
    count = length(facts, row[1])
    if count < row[3] or (row[4] >= 0 and row[4] != count):
        return False
    wanted, same = int64_at(row[2]), True
    for i in range(row[3]):
        same = same and item(facts, row[1], i) == wanted[i]
    return same


@register_jitable
def holds(facts, row, given, frame, table):
    """Whether one row is as it was; binds what it is about."""
    kind = row[0]
    if kind == at.IS:
        return load(row[1]) == row[2]
    if kind == at.KNOWN:
        return (
            load(row[1] + facts[at.META]) == row[2]
            and load(row[1] + facts[at.STORAGE]) == row[3]
            and ours(facts, load(row[3] + facts[at.WRITER]), row[4])
        )
    if kind == at.WRITTEN:
        return load(row[1] + facts[at.SAVERS]) == facts[at.NONE] and load(row[1] + facts[at.WRITER]) == row[2]
    if kind == at.IS_NOT:
        return load(row[1]) != row[2]
    if kind == at.SAME:
        return load(row[1]) == load(row[2])
    if kind == at.ENTRY:
        return entry(facts, row[1], row[2]) == row[3]
    if kind == at.TRUTH:
        found = entry(facts, row[1], row[2])
        if found == row[3]:
            return True
        if found == 0 or load(found + facts[at.TYPE]) != facts[at.FLOAT_TYPE]:
            return False
        return (float64_at(found + facts[at.FLOAT])[0] != 0.0) == (row[4] != 0)
    if kind == at.ITEM:
        return row[2] < length(facts, row[1]) and item(facts, row[1], row[2]) == row[3]
    if kind == at.ITEMS:
        return first_items(facts, row)
    if kind == at.TENSOR:
        t = given[row[1]]
        return (
            load(t + facts[at.TYPE]) == row[2]
            and load(t + facts[at.META]) == row[3]
            and load(t + facts[at.WHOLE]) == facts[at.TRUE]
        )
    if kind == at.FLOATING:
        return load(given[row[1]] + facts[at.TYPE]) == facts[at.FLOAT_TYPE]
    if kind == at.APART:
        storage = load(given[row[1]] + facts[at.STORAGE])
        others, apart = int64_at(row[2]), True
        for i in range(row[3]):
            apart = apart and others[i] != storage
        return apart
    if kind == at.DISTINCT:
        return load(given[row[1]] + facts[at.STORAGE]) != load(given[row[2]] + facts[at.STORAGE])
    if kind == at.ARGUMENT:
        if convert(float64_at(given[row[1]] + facts[at.FLOAT])[0], row[2], row[3]):
            table[at.DIRTY] = 1
        return True
    if kind == at.OPTION:
        found = entry(facts, row[1], row[2])
        if found == 0 or load(found + facts[at.TYPE]) != facts[at.FLOAT_TYPE]:
            return False
        if convert(float64_at(found + facts[at.FLOAT])[0], row[3], row[4]):
            table[at.DIRTY] = 1
        return True
    if kind == at.VALUE:
        if convert(float64_of_bits(row[1]), row[2], row[3]):
            table[at.DIRTY] = 1
        return True
    if kind == at.INPUT:
        storage = memory(facts, given[row[1]])
        if storage == 0 or not ours(facts, load(storage + facts[at.WRITER]), row[5]):
            return False
        frame[at.BORROWED + row[4]] = storage
        if bind(call_1(facts[at.TO_INT], load(storage + facts[at.ADDRESS])), row[2], row[3]):
            table[at.DIRTY] = 1
        return True
    if kind == at.ARENA:
        return bind_arena(facts, table, load(row[1]), row[2], row[3], row[4])
    if kind == at.RESULT:
        for i in range(length(facts, row[1])):
            t = item(facts, row[1], i)
            storage = unused(facts, t, row)
            if storage != 0:
                frame[at.MADE + row[6]] = t
                if bind(call_1(facts[at.TO_INT], load(storage + facts[at.ADDRESS])), row[4], row[5]):
                    table[at.DIRTY] = 1
                return True
    return False


@register_jitable
def passed(facts, row_at, row):
    """How many rows need not be looked at from this one on, itself included: those about a dict that has not changed; 0 for
    a row that has to hold."""
    if row[0] == at.UNCHANGED:
        version = load(row[1] + facts[at.DICT_VERSION])
        if version == row[2]:
            return row[3] + 1
        row[4] = version
        return 1
    if row[0] == at.CHECKED:  # by the version that it had before: comparing keys may have changed it
        group = int64_at(row_at - 8 * at.ROW * row[1])
        group[2] = group[4]
        return 1
    return 0


@register_jitable
def all_hold(facts, row_at, count, given, frame, table):
    """Whether all rows are as they were."""
    while count > 0:
        row = int64_at(row_at)
        n = passed(facts, row_at, row)
        if n == 0:
            if not holds(facts, row, given, frame, table):
                return False
            n = 1
        row_at += 8 * at.ROW * n
        count -= n
    return True


@register_jitable
def count_version(facts, address):
    """Count a write to a storage; False with an error set."""
    field = int64_at(address)
    before = field[0]
    after = call_1(facts[at.FROM_INT], call_1(facts[at.TO_INT], before) + 1)
    if after == 0:
        return False
    field[0] = after
    call_1(facts[at.LET_GO], before)
    return True


@register_jitable
def replace(facts, address, thing):
    """Put an object, whose reference is given away, into a field."""
    field = int64_at(address)
    before = field[0]
    field[0] = thing
    call_1(facts[at.LET_GO], before)


@register_jitable
def sweep(facts, table, records, count, release):
    """Sweep records of a program, without the GIL where that is worth it."""
    if release:
        state = call_0(facts[at.SAVE])
        call_2(table[at.SWEEP], records, count)
        call_1(facts[at.RESTORE], state)
    else:
        call_2(table[at.SWEEP], records, count)


@register_jitable
def run(facts, table):
    """Sweep a program."""
    sweep(facts, table, table[at.PROGRAM], table[at.COUNT], table[at.RELEASE] != 0)


@register_jitable
def checked(facts, table):
    """Whether nothing is wrong with operands, by the records that may say so; before anything is written that outlives the run."""
    if table[at.SPLIT] == 0:
        return True
    sweep(facts, table, table[at.CHECKS], table[at.SPLIT], table[at.RELEASE] == 2)
    error = int64_at(table[at.ERROR])
    if error[0] == 0:
        return True
    error[0] = 0  # Python finds it again, and raises it
    return False


@register_jitable
def perform(facts, table, frame):
    """Everything holds: sweep, and hand over. The result, 0 if an operand is wrong, or -1 with an error set."""
    made, borrowed = table[at.RESULTS], table[at.INPUTS] if table[at.RELEASE] != 0 else 0
    for i in range(made):
        call_1(facts[at.HOLD], frame[at.MADE + i])
    for i in range(borrowed):
        call_1(facts[at.HOLD], frame[at.BORROWED + i])
    result = hand_over(facts, table, frame) if checked(facts, table) else 0
    for i in range(made):
        call_1(facts[at.LET_GO], frame[at.MADE + i])
    for i in range(borrowed):
        call_1(facts[at.LET_GO], frame[at.BORROWED + i])
    return result


@register_jitable
def hand_over(facts, table, frame):
    """Sweep what writes, and set gradients. The result, or -1 with an error set."""
    versions = int64_at(table[at.VERSIONS])
    for i in range(table[at.VERSION_COUNT]):
        if not count_version(facts, versions[i]):
            return -1
    int64_at(facts[at.RUNS])[0] += 1
    run(facts, table)
    gradients = int64_at(table[at.GRADIENTS])
    for i in range(table[at.GRADIENT_COUNT]):
        field, number = int64_at(gradients[2 * i]), gradients[2 * i + 1]
        before = field[0]
        after = facts[at.NONE] if number < 0 else frame[at.MADE + number]
        if before != after:
            call_1(facts[at.HOLD], after)
            field[0] = after
            call_1(facts[at.LET_GO], before)  # may run a weak reference's callback
    answer = table[at.RETURN]
    result = facts[at.NONE]
    if answer < 0:
        result = call_1(facts[at.NEW_TUPLE], -answer)
        if result == 0:
            result = -1
        else:
            for i in range(-answer):
                call_1(facts[at.HOLD], frame[at.MADE + i])
                call_3(facts[at.SET_TUPLE], result, i, frame[at.MADE + i])
    else:
        if answer < at.NOTHING:
            result = frame[at.MADE + answer]
        call_1(facts[at.HOLD], result)
    return result


@register_jitable
def step(table_at, frame_at):
    """The result of the first table of the chain that holds, as a new reference; 0 if none does, -1 if an error is set."""
    frame = int64_at(frame_at)
    table = int64_at(table_at)
    facts = int64_at(table[at.FACTS])
    call_1(facts[at.HOLD], table[at.SELF])
    while True:
        matches = frame[at.GIVEN] == table[at.ARGUMENTS]
        matches = matches and call_1(facts[at.THREAD_ID], call_0(facts[at.THREAD])) == table[at.OWNER]
        given, rows = int64_at(frame[at.ARGUMENTS_AT]), table_at + 8 * at.HEADER
        matches = matches and all_hold(facts, rows, table[at.ROWS], given, frame, table)
        result = perform(facts, table, frame) if matches else 0
        next_at = 0 if matches else table[at.NEXT]
        if next_at != 0:
            call_1(facts[at.HOLD], load(next_at + 8 * at.SELF))
        call_1(facts[at.LET_GO], table[at.SELF])
        if next_at == 0:
            return result
        table_at, table = next_at, int64_at(next_at)


@register_jitable
def same_living(facts, table, living):
    """Whether the same tensors are alive as before, none with memory already."""
    alive, count = int64_at(table[at.ALIVE]), table[at.LIVE]
    if length(facts, living) != count:
        return False
    for i in range(count):
        t = item(facts, living, i)
        if (references(t) > facts[at.FREE_TENSOR]) != (alive[i] != 0):
            return False
        if alive[i] != 0 and load(t + facts[at.STORAGE]) != facts[at.NONE]:
            return False
    return True


@register_jitable
def number(facts, table, value, cells, count):
    """Bind a Python number; False if it is neither a float nor a small int."""
    kind = load(value + facts[at.TYPE])
    if kind == facts[at.FLOAT_TYPE]:
        changed = convert(float64_at(value + facts[at.FLOAT])[0], cells, count)
    elif kind == facts[at.INT_TYPE]:
        word = call_1(facts[at.TO_INT], value)
        if word == -1 and call_0(facts[at.OCCURRED]) != 0:
            call_0(facts[at.CLEAR])
            return False
        changed = convert(float64(word), cells, count)
    else:
        return False
    if changed:
        table[at.DIRTY] = 1
    return True


@register_jitable
def free_memory(facts, pool):
    """A storage of a pool that nobody else holds; 0 if there is none."""
    for i in range(length(facts, pool)):
        storage = item(facts, pool, i)
        if (
            references(storage) <= facts[at.POOL_STORAGE]
            and references(load(storage + facts[at.ARRAY])) <= facts[at.POOL_ARRAY]
            and load(storage + facts[at.SAVERS]) == facts[at.NONE]
            and load(storage + facts[at.SHARED]) == facts[at.FALSE]
        ):
            return storage
    return 0


@register_jitable
def next_written(facts, table, table_at, written, first):
    """The next storage that the trace writes; 0 behind the last."""
    if first:
        table[at.NEXT_AT] = 0
    place = table_at + 8 * at.NEXT_AT
    if call_4(facts[at.WALK], written, place, place + 8, place + 16) & 0xFFFFFFFF == 0:  # it returns an int
        return 0
    return table[at.NEXT_KEY]


@register_jitable
def prepare(facts, table, table_at, trace, row_at):
    """Bind inputs, numbers, results and temporaries of an ending; whether all is as it was."""
    addresses, scalars = load(trace + facts[at.ADDRESSES]), load(trace + facts[at.SCALARS])
    inputs, numbers, results = table[at.INPUTS], table[at.NUMBERS], table[at.RESULTS]
    if length(facts, addresses) != inputs or length(facts, scalars) != numbers:
        return False
    written = load(trace + facts[at.WRITTEN])
    storage = next_written(facts, table, table_at, written, True)
    while storage != 0:
        if load(storage + facts[at.SAVERS]) != facts[at.NONE]:
            return False
        storage = next_written(facts, table, table_at, written, False)
    for i in range(numbers):
        row = int64_at(row_at + 8 * at.ROW * (inputs + i))
        if not number(facts, table, item(facts, scalars, i), row[0], row[1]):
            return False
    for i in range(inputs):
        row = int64_at(row_at + 8 * at.ROW * i)
        if bind(call_1(facts[at.TO_INT], item(facts, addresses, i)), row[0], row[1]):
            table[at.DIRTY] = 1
    chosen = int64_at(table[at.CHOSEN])
    for i in range(results):
        row = int64_at(row_at + 8 * at.ROW * (inputs + numbers + i))
        position = load(item(facts, load(trace + facts[at.LIVING]), row[3]) + facts[at.AT])
        if call_1(facts[at.TO_INT], call_2(facts[at.GET_TUPLE], position, 1)) != row[6]:
            return False
        storage = free_memory(facts, row[0])
        if storage == 0:
            return False
        chosen[i] = storage
        if bind(call_1(facts[at.TO_INT], load(storage + facts[at.ADDRESS])), row[1], row[2]):
            table[at.DIRTY] = 1
    if table[at.NEEDS] == 0:
        return True
    arena = load(trace + facts[at.TEMPORARIES])
    return bind_arena(facts, table, arena, table[at.NEEDS], table[at.ARENA_USES], table[at.ARENA_COUNT])


@register_jitable
def end(table_at, trace):
    """Run a trace that ends as its table says, and hand its values over; 0 if it does not, -1 if an error is set.

    Nothing here runs other code, except during a sweep without the GIL: then the trace's list holds the tensors, and the
    memory chosen for them is held from the moment on at which it was chosen.
    """
    table = int64_at(table_at)
    facts = int64_at(table[at.FACTS])
    row_at = table_at + 8 * at.HEADER
    living = load(trace + facts[at.LIVING])
    if (
        not same_living(facts, table, living)
        or not prepare(facts, table, table_at, trace, row_at)
        or not checked(facts, table)
    ):
        return 0
    chosen = int64_at(table[at.CHOSEN])
    written = load(trace + facts[at.WRITTEN])
    storage = next_written(facts, table, table_at, written, True)
    while storage != 0:
        if not count_version(facts, storage + facts[at.VERSION]):
            return -1
        storage = next_written(facts, table, table_at, written, False)
    for i in range(table[at.RESULTS]):
        call_1(facts[at.HOLD], chosen[i])
        call_1(facts[at.HOLD], facts[at.NONE])
        replace(facts, chosen[i] + facts[at.ALIASES], facts[at.NONE])
    int64_at(facts[at.RUNS])[0] += 1
    run(facts, table)
    for i in range(table[at.RESULTS]):
        row = int64_at(row_at + 8 * at.ROW * (table[at.INPUTS] + table[at.NUMBERS] + i))
        t = item(facts, living, row[3])
        replace(facts, t + facts[at.STORAGE], chosen[i])
        if load(load(t + facts[at.META]) + facts[at.TYPE]) == facts[at.NODE_TYPE]:
            call_1(facts[at.HOLD], row[4])
            replace(facts, t + facts[at.META], row[4])
        if row[5] != 0:
            call_1(facts[at.HOLD], row[5])
            replace(facts, t + facts[at.ORIGIN], row[5])
    return 1
