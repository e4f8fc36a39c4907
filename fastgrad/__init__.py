"""fastgrad: reverse-mode automatic differentiation with PyTorch's API, executed by compiled sweeps over a flat tape."""

from math import e, inf, nan, pi
from typing import TYPE_CHECKING, Any

from . import autograd, cuda, devices, drafts, dtypes, threads
from .autograd import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from .compiled import compile
from .control import eager, get_num_threads, set_num_threads, stats
from .control import tape_table as tape
from .devices import device
from .dispatch import tensor_operand as _tensor_operand
from .dtypes import bool_ as bool
from .dtypes import (
    dtype,
    finfo,
    float32,
    float64,
    get_default_dtype,
    iinfo,
    int32,
    int64,
    promote_types,
    set_default_dtype,
    uint8,
)  # fmt: skip
from .execute import set_tier
from .functions.creation import (
    arange,
    as_tensor,
    asarray,
    empty,
    empty_like,
    eye,
    from_numpy,
    full,
    full_like,
    linspace,
    logspace,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)  # fmt: skip
from .functions.einsum import einsum
from .functions.indexing import (
    masked_select,
)  # fmt: skip
from .functions.order import (
    argsort,
    repeat_interleave,
    sort,
    topk,
    unique,
)  # fmt: skip
from .functions.pointwise import (
    abs,
    absolute,
    acos,
    acosh,
    add,
    addcdiv,
    addcmul,
    allclose,
    arccos,
    arccosh,
    arcsin,
    arcsinh,
    arctan,
    arctan2,
    arctanh,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    bitwise_and,
    bitwise_left_shift,
    bitwise_not,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    ceil,
    clamp,
    clip,
    cos,
    cosh,
    deg2rad,
    div,
    divide,
    eq,
    equal,
    erf,
    erfc,
    erfinv,
    exp,
    exp2,
    expm1,
    floor,
    floor_divide,
    fmod,
    ge,
    gt,
    hypot,
    isclose,
    isfinite,
    isinf,
    isnan,
    le,
    lerp,
    log,
    log1p,
    log2,
    log10,
    logaddexp,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    maximum,
    minimum,
    mul,
    multiply,
    ne,
    neg,
    negative,
    pow,
    rad2deg,
    reciprocal,
    relu,
    remainder,
    round,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sinc,
    sinh,
    sqrt,
    square,
    sub,
    subtract,
    tan,
    tanh,
    true_divide,
    trunc,
    where,
    xlogy,
)  # fmt: skip
from .functions.positions import (
    gather,
    index_add,
    index_copy,
    index_fill,
    index_select,
    masked_fill,
    nonzero,
    scatter,
    scatter_add,
    take,
)  # fmt: skip
from .functions.products import addmm, baddbmm, bmm, diag, diagonal, dot, ger, matmul, mm, mv, outer, trace
from .functions.random import (
    Generator,
    bernoulli,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    multinomial,
    normal,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
    seed,
    set_rng_state,
)  # fmt: skip
from .functions.reductions import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    cumsum,
    logsumexp,
    max,
    mean,
    min,
    norm,
    prod,
    std,
    sum,
    var,
)  # fmt: skip
from .functions.shapes import (
    broadcast_to,
    cat,
    chunk,
    clone,
    concat,
    concatenate,
    flatten,
    flip,
    hstack,
    movedim,
    narrow,
    permute,
    repeat,
    reshape,
    select,
    split,
    squeeze,
    stack,
    swapaxes,
    t,
    tile,
    transpose,
    tril,
    triu,
    unbind,
    unsqueeze,
    vstack,
)  # fmt: skip
from .kernels.memory import OutOfMemoryError
from .printing import set_printoptions
from .serialize import load, save
from .tensor import Size, Tensor

# isort: split
from . import nn, optim  # written with the names above
from .nn.functional import log_softmax, softmax

__version__ = "0.1.0"

long = int64
int = int32
float = float32
double = float64


def is_tensor(obj: Any) -> "builtins.bool":
    """Whether an object is a Tensor."""
    return isinstance(obj, Tensor)


def numel(input: Tensor) -> "builtins.int":
    """The number of elements."""
    return _tensor_operand(input, "numel").numel()


def detach(input: Tensor) -> Tensor:
    """The same memory outside of any gradient."""
    return _tensor_operand(input, "detach").detach()


if TYPE_CHECKING:
    import builtins

_MODULES = ("autograd", "cuda", "nn", "optim")
__all__ = [  # every public name above; of the modules only those that PyTorch has, too
    name
    for name, value in list(globals().items())
    if not name.startswith("_")
    and name not in ("Any", "TYPE_CHECKING")
    and (type(value) is not type(autograd) or name in _MODULES)
]
