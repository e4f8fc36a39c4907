"""Folds in LANES interleaved accumulators, as vectors of LLVM: lane k takes in the elements k, k + LANES, ...; then the lanes are
combined pairwise (k with k + half).

`sum_lanes(a, base, count)` and its sisters fold `count` elements (a multiple of LANES, at least LANES) of a typed pointer. The
order is part of the code, not of the compiler's choice, so that the bits are the same in every kernel that uses them.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 32


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


sum_lanes = _fold("sum")
prod_lanes = _fold("prod")
amax_lanes = _fold("amax")
amin_lanes = _fold("amin")
