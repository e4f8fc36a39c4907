"""The few intrinsics that Numba does not have: typed pointers from addresses, calls by address, fma, bit casts.

Kernels see memory as raw addresses (int64). `float32_at(address)` and its sisters give a typed C pointer that is indexed like
an array; index it with unsigned integers (`range(np.uintp(n))`), so that LLVM can vectorise. Everything here compiles to one
machine instruction or to nothing.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WORD = ir.IntType(64)


def _pointer(numba_type, llvm_type):
    @intrinsic
    def at(typingctx, address):
        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], llvm_type.as_pointer())

        return types.CPointer(numba_type)(types.int64), codegen

    return at


float32_at = _pointer(types.float32, ir.FloatType())
float64_at = _pointer(types.float64, ir.DoubleType())
int64_at = _pointer(types.int64, ir.IntType(64))
int32_at = _pointer(types.int32, ir.IntType(32))
uint8_at = _pointer(types.uint8, ir.IntType(8))


@intrinsic
def call_kernel(typingctx, address, record):
    """Call the kernel at `address` with the address of its record: `void kernel(int64* record)`."""

    def codegen(context, builder, signature, args):
        kernel = ir.FunctionType(ir.VoidType(), [WORD.as_pointer()]).as_pointer()
        builder.call(builder.inttoptr(args[0], kernel), [builder.inttoptr(args[1], WORD.as_pointer())])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c, rounded once; one instruction on a CPU that has it."""
    if not (a == b == c and a in (types.float32, types.float64)):
        return None

    def codegen(context, builder, signature, args):
        return builder.fma(*args)

    return a(a, b, c), codegen


def _unary(llvm_name):
    @intrinsic
    def function(typingctx, a):
        if a not in (types.float32, types.float64):
            return None

        def codegen(context, builder, signature, args):
            kind = args[0].type
            callee = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(kind, [kind]), f"llvm.{llvm_name}.{kind.intrinsic_name}"
            )
            return builder.call(callee, args)

        return a(a), codegen

    return function


rint = _unary("rint")
floor = _unary("floor")
ceil = _unary("ceil")
trunc = _unary("trunc")
sqrt = _unary("sqrt")
fabs = _unary("fabs")


@intrinsic
def copysign(typingctx, a, b):
    """The magnitude of a with the sign of b."""
    if a != b or a not in (types.float32, types.float64):
        return None

    def codegen(context, builder, signature, args):
        kind = args[0].type
        callee = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind, kind]), f"llvm.copysign.{kind.intrinsic_name}"
        )
        return builder.call(callee, args)

    return a(a, b), codegen


def _bitcast(source, target, llvm_target):
    @intrinsic
    def function(typingctx, a):
        if a != source:
            return None

        def codegen(context, builder, signature, args):
            return builder.bitcast(args[0], llvm_target)

        return target(source), codegen

    return function


bits_of_float64 = _bitcast(types.float64, types.int64, ir.IntType(64))
float64_of_bits = _bitcast(types.int64, types.float64, ir.DoubleType())
bits_of_float32 = _bitcast(types.float32, types.int32, ir.IntType(32))
float32_of_bits = _bitcast(types.int32, types.float32, ir.FloatType())


@intrinsic
def call_gemv(typingctx, address, p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10):
    """Call Fortran's gemv at `address` with eleven addresses."""

    def codegen(context, builder, signature, args):
        byte = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [byte] * 11).as_pointer()
        builder.call(builder.inttoptr(args[0], function), [builder.inttoptr(word, byte) for word in args[1:]])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 12), codegen


@intrinsic
def call_gemm(typingctx, address, p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11, p12):
    """Call Fortran's gemm at `address` with thirteen addresses."""

    def codegen(context, builder, signature, args):
        byte = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [byte] * 13).as_pointer()
        builder.call(builder.inttoptr(args[0], function), [builder.inttoptr(word, byte) for word in args[1:]])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 14), codegen


def _call(count):
    word_pointer = ir.FunctionType(WORD, [WORD] * count)

    def codegen(context, builder, signature, args):
        return builder.call(builder.inttoptr(args[0], word_pointer.as_pointer()), args[1:])

    return types.int64(*[types.int64] * (count + 1)), codegen


@intrinsic
def call_0(typingctx, address):
    """Call the C function at `address`; words are addresses or integers, in and out."""
    return _call(0)


@intrinsic
def call_1(typingctx, address, a):
    """Call the C function of one word at `address`."""
    return _call(1)


@intrinsic
def call_2(typingctx, address, a, b):
    """Call the C function of two words at `address`."""
    return _call(2)


@intrinsic
def call_3(typingctx, address, a, b, c):
    """Call the C function of three words at `address`."""
    return _call(3)


@intrinsic
def call_4(typingctx, address, a, b, c, d):
    """Call the C function of four words at `address`."""
    return _call(4)
