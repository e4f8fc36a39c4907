"""Elementary functions in plain Numba that LLVM vectorises: `NAME_f64(x)` and `NAME_f32(x)` for each name.

Scalar functions, to be called in a loop over typed pointers; the loop becomes SIMD code, and its lanes have the same bits as
its scalar remainder. Accuracy: at most 1 ulp in float64 (pow, tan, erfc: 2) and 2 ulp in float32, special values as NumPy's
(PyTorch's, where NumPy has no such function). sin, cos and tan hold for |x| <= TRIG_LIMIT; `sin_full_f64` and its sisters
hold for every x, with the same bits below the limit. lgamma, digamma and erfinv are scalar code.
"""

from .vmath_arc import acos_f32, acos_f64, asin_f32, asin_f64, atan2_f32, atan2_f64, atan_f32, atan_f64
from .vmath_erf import erf_f32, erf_f64, erfc_f32, erfc_f64, gelu_f32, gelu_f64
from .vmath_exp import exp2_f32, exp2_f64, exp_f32, exp_f64, expm1_f32, expm1_f64
from .vmath_hyper import (
    acosh_f32,
    acosh_f64,
    asinh_f32,
    asinh_f64,
    atanh_f32,
    atanh_f64,
    cosh_f32,
    cosh_f64,
    sinh_f32,
    sinh_f64,
    tanh_f32,
    tanh_f64,
)
from .vmath_log import log1p_f32, log1p_f64, log2_f32, log2_f64, log10_f32, log10_f64, log_f32, log_f64
from .vmath_power import (
    cbrt_f32,
    cbrt_f64,
    hypot_f32,
    hypot_f64,
    pow_f32,
    pow_f64,
    rsqrt_f32,
    rsqrt_f64,
    sqrt_f32,
    sqrt_f64,
)
from .vmath_scalar import digamma_f32, digamma_f64, erfinv_f32, erfinv_f64, lgamma_f32, lgamma_f64
from .vmath_sigmoid import (
    gelu_tanh_f32,
    gelu_tanh_f64,
    logsigmoid_f32,
    logsigmoid_f64,
    sigmoid_f32,
    sigmoid_f64,
    silu_f32,
    silu_f64,
    softplus_f32,
    softplus_f64,
)
from .vmath_trig import (
    TRIG_LIMIT_F32,
    TRIG_LIMIT_F64,
    cos_f32,
    cos_f64,
    cos_full_f32,
    cos_full_f64,
    sin_f32,
    sin_f64,
    sin_full_f32,
    sin_full_f64,
    tan_f32,
    tan_f64,
    tan_full_f32,
    tan_full_f64,
)

_UNARY = (
    "exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh sigmoid logsigmoid "
    "softplus silu gelu gelu_tanh erf erfc sqrt rsqrt cbrt"
)
