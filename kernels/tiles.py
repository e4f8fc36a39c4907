"""The inner loops of the own matrix product as LLVM vectors: a tile of C kept in registers, and a transposed block.

Every element of a tile is one chain of fused multiply-adds in the order of k, so its bits depend neither on the tile's shape,
nor on the vectors' width, nor on who computes it. Widths are the machine's: 512, 256 or 128 bits.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .vectors import width

WORD = ir.IntType(64)
_FLOATS = {"f4": (ir.FloatType(), 4, "f32"), "f8": (ir.DoubleType(), 8, "f64")}


def _at(builder, address, kind):
    return builder.inttoptr(address, kind.as_pointer())


def _function(builder, name, count):
    """A function of words of its own in the module, or None as body if it is there already."""
    kind = ir.FunctionType(ir.VoidType(), [WORD] * count)
    known = builder.module.globals.get(name)
    if known is not None:
        return known, None
    function = ir.Function(builder.module, kind, name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    return function, ir.IRBuilder(function.append_basic_block("entry"))


def tile(dtype: str, rows: int, vectors: int):
    """`f(k, a, a_row, a_column, b, b_row, c, c_row, add)`: C = A B, or C += A B, for `rows` rows and `vectors` vectors of
    columns. Addresses and steps are in bytes; B's rows and C's are contiguous."""
    lanes = width(dtype)

    @intrinsic
    def compute(typingctx, k, a, a_row, a_column, b, b_row, c, c_row, add):
        def codegen(context, builder, signature, args):
            name = f"fastgrad_tile_{dtype}_{rows}_{vectors}_{lanes}"
            function, body = _function(builder, name, 9)
            if body is not None:
                _tile(body, function.args, dtype, rows, vectors)
            builder.call(function, args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return compute


def _tile(builder, args, dtype, rows, vectors):
    scalar, size, suffix = _FLOATS[dtype]
    lanes = width(dtype)
    vector = ir.VectorType(scalar, lanes)
    k, a, a_row, a_column, b, b_row, c, c_row, add = args
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}{suffix}"
    )
    undefined = ir.Constant(vector, ir.Undefined)
    spread = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    tops = [a]
    for _ in range(rows - 1):
        tops.append(builder.add(tops[-1], a_row))
    before = builder.block
    loop, after = builder.append_basic_block("k"), builder.append_basic_block("end")
    more, first = builder.append_basic_block("more"), builder.append_basic_block("first")
    builder.branch(loop)
    builder.position_at_end(loop)
    left, along, right = builder.phi(WORD), builder.phi(WORD), builder.phi(WORD)
    sums = [[builder.phi(vector) for _ in range(vectors)] for _ in range(rows)]
    offsets = [builder.add(right, ir.Constant(WORD, v * lanes * size)) for v in range(vectors)]
    columns = [builder.load(_at(builder, offset, vector), align=size) for offset in offsets]
    new = []
    for i in range(rows):
        factor = builder.load(_at(builder, builder.add(tops[i], along), scalar), align=size)
        factor = builder.insert_element(undefined, factor, ir.Constant(ir.IntType(32), 0))
        factor = builder.shuffle_vector(factor, undefined, spread)
        new.append([builder.call(fma, [factor, columns[v], sums[i][v]]) for v in range(vectors)])
    steps = (builder.sub(left, WORD(1)), builder.add(along, a_column), builder.add(right, b_row))
    builder.cbranch(builder.icmp_signed(">", steps[0], WORD(0)), loop, after)
    for phi, start, step in zip((left, along, right), (k, WORD(0), b), steps, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(step, loop)
    for row, values in zip(sums, new, strict=True):
        for phi, value in zip(row, values, strict=True):
            phi.add_incoming(ir.Constant(vector, [0.0] * lanes), before)
            phi.add_incoming(value, loop)
    builder.position_at_end(after)
    builder.cbranch(builder.icmp_signed("!=", add, WORD(0)), more, first)
    for block, adds in ((more, True), (first, False)):
        builder.position_at_end(block)
        _store(builder, c, c_row, new, vector, size, adds)
        builder.ret_void()


def _store(builder, c, c_row, values, vector, size, add):
    for row in values:
        for v, value in enumerate(row):
            place = _at(builder, builder.add(c, ir.Constant(WORD, v * vector.count * size)), vector)
            builder.store(builder.fadd(builder.load(place, align=size), value) if add else value, place, align=size)
        c = builder.add(c, c_row)


def transposed(dtype: str):
    """`f(source, step, target, target_step)`: a square block of as many rows as a vector has elements, transposed; steps of
    rows in bytes."""

    @intrinsic
    def transpose(typingctx, source, step, target, target_step):
        def codegen(context, builder, signature, args):
            function, body = _function(builder, f"fastgrad_transpose_{dtype}_{width(dtype)}", 4)
            if body is not None:
                _transposed(body, function.args, dtype)
            builder.call(function, args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return transpose


def _transposed(builder, args, dtype):
    scalar, size, _ = _FLOATS[dtype]
    lanes = width(dtype)
    vector = ir.VectorType(scalar, lanes)
    source, step, target, target_step = args
    rows = []
    for _ in range(lanes):
        rows.append(builder.load(_at(builder, source, vector), align=size))
        source = builder.add(source, step)
    kind, half = ir.VectorType(ir.IntType(32), lanes), lanes // 2
    low = ir.Constant(kind, [x for i in range(half) for x in (i, lanes + i)])
    high = ir.Constant(kind, [x for i in range(half, lanes) for x in (i, lanes + i)])
    done = 1
    while done < lanes:  # each round interleaves rows that are half the block apart
        rows = [builder.shuffle_vector(rows[i], rows[i + half], mask) for i in range(half) for mask in (low, high)]
        done *= 2
    for row in rows:
        builder.store(row, _at(builder, target, vector), align=size)
        target = builder.add(target, target_step)
    builder.ret_void()


def copied(dtype: str, elements: int):
    """`f(count, source, step, target)`: count rows of so many elements, steps in bytes, one behind the other."""

    @intrinsic
    def copy(typingctx, count, source, step, target):
        def codegen(context, builder, signature, args):
            function, body = _function(builder, f"fastgrad_copy_{dtype}_{elements}", 4)
            if body is not None:
                _copied(body, function.args, dtype, elements)
            builder.call(function, args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return copy


def _copied(builder, args, dtype, elements):
    scalar, size, _ = _FLOATS[dtype]
    count, source, step, target = args
    vector = ir.VectorType(scalar, elements)
    before, loop, after = builder.block, builder.append_basic_block("row"), builder.append_basic_block("end")
    builder.branch(loop)
    builder.position_at_end(loop)
    phis = [builder.phi(WORD) for _ in range(3)]
    builder.store(builder.load(_at(builder, phis[1], vector), align=size), _at(builder, phis[2], vector), align=size)
    steps = [builder.sub(phis[0], WORD(1)), builder.add(phis[1], step), builder.add(phis[2], WORD(elements * size))]
    builder.cbranch(builder.icmp_signed(">", steps[0], WORD(0)), loop, after)
    for phi, start, value in zip(phis, (count, source, target), steps, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(value, loop)
    builder.position_at_end(after)
    builder.ret_void()
