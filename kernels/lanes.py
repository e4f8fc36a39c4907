"""Folds in LANES interleaved accumulators, as vectors of LLVM: lane k takes in the elements k, k + LANES, ...; then the lanes are
combined pairwise (k with k + half).

`sum_lanes(a, base, count)` and its sisters fold `count` elements (a multiple of LANES, at least LANES) of a typed pointer. The
order is part of the code, not of the compiler's choice, so that the bits are the same in every kernel that uses them.
`add_rows` adds rows of a matrix, column by column, one row after another.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .loops import LANES


def _fold(name):
    def take_in(builder, value, x, scalar):
        """The accumulators (or numbers) `value` after x; NaN wins in max and min, as in PyTorch."""
        real = isinstance(scalar, types.Float)
        if name == "sum":
            return builder.fadd(value, x) if real else builder.add(value, x)
        if name == "prod":
            return builder.fmul(value, x) if real else builder.mul(value, x)
        sign = ">" if name == "amax" else "<"
        if real:
            better = builder.or_(builder.fcmp_ordered(sign, x, value), builder.fcmp_unordered("uno", x, x))
        else:
            better = (builder.icmp_signed if scalar.signed else builder.icmp_unsigned)(sign, x, value)
        return builder.select(better, x, value)

    @intrinsic
    def lanes(typingctx, a, base, count):
        if not isinstance(a, types.CPointer):
            return None
        scalar = a.dtype

        def codegen(context, builder, signature, args):
            element = context.get_data_type(scalar)
            vector = ir.VectorType(element, LANES)
            size = ir.Constant(ir.IntType(64), LANES)

            def load(index):
                place = builder.bitcast(builder.gep(args[0], [index]), vector.as_pointer())
                return builder.load(place, align=context.get_abi_sizeof(element))

            found = cgutils.alloca_once(builder, vector)
            builder.store(load(args[1]), found)
            rest = builder.sub(builder.udiv(args[2], size), ir.Constant(ir.IntType(64), 1))
            with cgutils.for_range(builder, rest) as loop:
                index = builder.add(args[1], builder.mul(builder.add(loop.index, ir.Constant(ir.IntType(64), 1)), size))
                builder.store(take_in(builder, builder.load(found), load(index), scalar), found)
            value, half = builder.load(found), LANES // 2
            while half:
                parts = []
                for first in (0, half):
                    mask = ir.Constant(ir.VectorType(ir.IntType(32), half), [first + k for k in range(half)])
                    parts.append(builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask))
                value = take_in(builder, *parts, scalar)
                half //= 2
            return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

        return scalar(a, types.uintp, types.uintp), codegen

    return lanes


@intrinsic
def add_rows(typingctx, total, at, a, base, rows, columns, fresh):
    """total[at + j] += a[base + j], then a[base + columns + j], ... for `rows` rows; from zero on if `fresh`."""
    if not isinstance(a, types.CPointer) or a != total:
        return None
    scalar = a.dtype
    word = ir.IntType(64)

    def codegen(context, builder, signature, args):
        total_at, at, a_at, base, rows, columns, fresh = args
        element, align = context.get_data_type(scalar), context.get_abi_sizeof(context.get_data_type(scalar))
        found = {w: cgutils.alloca_once(builder, ir.VectorType(element, w)) for w in (32, 16, 8, 4, 2, 1)}
        add = builder.fadd if isinstance(scalar, types.Float) else builder.add

        def piece(offset, width):
            vector = ir.VectorType(element, width)

            def place(pointer, index):
                return builder.bitcast(builder.gep(pointer, [builder.add(index, offset)]), vector.as_pointer())

            target = place(total_at, at)
            zero = ir.Constant(vector, [0] * width)
            builder.store(builder.select(fresh, zero, builder.load(target, align=align)), found[width])
            with cgutils.for_range(builder, rows) as loop:
                row = place(a_at, builder.add(base, builder.mul(loop.index, columns)))
                builder.store(add(builder.load(found[width]), builder.load(row, align=align)), found[width])
            builder.store(builder.load(found[width]), target, align=align)

        with cgutils.for_range(builder, builder.udiv(columns, ir.Constant(word, LANES))) as loop:
            piece(builder.mul(loop.index, ir.Constant(word, LANES)), LANES)
        for width in (16, 8, 4, 2, 1):  # the columns that are left, by the bits of their number
            bits = builder.and_(columns, ir.Constant(word, width))
            with builder.if_then(builder.icmp_unsigned("!=", bits, ir.Constant(word, 0))):
                piece(builder.and_(columns, ir.Constant(word, -2 * width)), width)
        return context.get_dummy_value()

    numbers = [types.uintp] * 3
    return types.void(total, types.uintp, a, *numbers, types.boolean), codegen


sum_lanes = _fold("sum")
prod_lanes = _fold("prod")
amax_lanes = _fold("amax")
amin_lanes = _fold("amin")
