"""The few intrinsics that Numba does not have: typed pointers from addresses, calls by address, fma, bit casts, atomics.

Kernels see memory as raw addresses (int64). `float32_at(address)` and its sisters give a typed C pointer that is indexed like
an array; index it with unsigned integers (`range(np.uintp(n))`), so that LLVM can vectorise. Everything here compiles to one
machine instruction or to nothing.
"""

import platform

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


def _scopes(module, scope, total):
    """LLVM's metadata for an access to memory number `scope` of `total` that do not overlap."""
    known = module.__dict__.setdefault("_fastgrad_scopes", [])
    if not known:
        domain = module.add_metadata(["fastgrad"])
        known += [module.add_metadata([f"memory {k}", domain]) for k in range(total)]
    return module.add_metadata([known[scope]]), module.add_metadata([s for k, s in enumerate(known) if k != scope])


def _note(instruction, module, scope, total):
    own, others = _scopes(module, scope, total)
    instruction.set_metadata("alias.scope", own)
    instruction.set_metadata("noalias", others)


@intrinsic(prefer_literal=True)
def read(typingctx, pointer, index, scope, total):
    """pointer[index] of memory number `scope`: the `total` memories of a kernel are promised not to overlap, so that LLVM
    vectorises loops over many of them without comparing addresses."""
    if not isinstance(scope, types.IntegerLiteral) or not isinstance(total, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        value = builder.load(builder.gep(args[0], [args[1]]))
        _note(value, builder.module, scope.literal_value, total.literal_value)
        return value

    return pointer.dtype(pointer, types.uintp, scope, total), codegen


@intrinsic(prefer_literal=True)
def write(typingctx, pointer, index, value, scope, total):
    """pointer[index] = value, in memory number `scope`; see `read`."""
    if not isinstance(scope, types.IntegerLiteral) or not isinstance(total, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        done = builder.store(args[2], builder.gep(args[0], [args[1]]))
        _note(done, builder.module, scope.literal_value, total.literal_value)
        return context.get_dummy_value()

    return types.void(pointer, types.uintp, pointer.dtype, scope, total), codegen


def _stack(numba_type, llvm_type):
    @intrinsic(prefer_literal=True)
    def block(typingctx, count):
        if not isinstance(count, types.IntegerLiteral):
            return None

        def codegen(context, builder, signature, args):
            with builder.goto_entry_block():
                place = builder.alloca(ir.ArrayType(llvm_type, count.literal_value))
                place.align = 64
            return builder.bitcast(place, llvm_type.as_pointer())

        return types.CPointer(numba_type)(count), codegen

    return block


float32_block = _stack(types.float32, ir.FloatType())  # memory for so many elements, for the time of a kernel's call
float64_block = _stack(types.float64, ir.DoubleType())
int64_block = _stack(types.int64, ir.IntType(64))
int32_block = _stack(types.int32, ir.IntType(32))
uint8_block = _stack(types.uint8, ir.IntType(8))


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


@intrinsic
def atomic_load(typingctx, address):
    """The word at `address`; what other threads wrote before they stored it can be read afterwards."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(builder.inttoptr(args[0], WORD.as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def atomic_store(typingctx, address, value):
    """Store a word, after all that this thread has written before."""

    def codegen(context, builder, signature, args):
        builder.store_atomic(args[1], builder.inttoptr(args[0], WORD.as_pointer()), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def atomic_add(typingctx, address, value):
    """Add to the word at `address`; returns what was there."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", builder.inttoptr(args[0], WORD.as_pointer()), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_swap(typingctx, address, expected, value):
    """Store `value` if the word at `address` is `expected`; returns whether it was."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], WORD.as_pointer())
        return builder.extract_value(builder.cmpxchg(pointer, args[1], args[2], "seq_cst", "seq_cst"), 1)

    return types.boolean(types.int64, types.int64, types.int64), codegen


@intrinsic
def pause(typingctx):
    """Tell the CPU that this thread waits in a loop; nothing on a CPU that cannot be told."""

    def codegen(context, builder, signature, args):
        machine = platform.machine().lower()
        if machine in ("x86_64", "amd64"):
            name, kinds, values = "llvm.x86.sse2.pause", [], []
        elif machine in ("aarch64", "arm64"):
            name, kinds, values = "llvm.aarch64.hint", [ir.IntType(32)], [ir.Constant(ir.IntType(32), 1)]  # yield
        else:
            return context.get_dummy_value()
        hint = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), kinds), name)
        builder.call(hint, values)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def prefetch(typingctx, address):
    """Begin to load the cache line at `address`, which may be any number."""

    def codegen(context, builder, signature, args):
        pointer, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        callee = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [pointer, word, word, word]), "llvm.prefetch.p0"
        )
        hint = [word(0), word(3), word(1)]  # for reading, into all levels, data
        builder.call(callee, [builder.inttoptr(args[0], pointer), *hint])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


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
