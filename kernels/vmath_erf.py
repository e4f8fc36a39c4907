"""erf erfc gelu.

erf: an odd polynomial for |x| <= 0.85 (float32: 1), 1 - exp(-P(|x|)) with P = -log(erfc) beyond. erfc (after Shepherd
and Laframboise, and Juffa): exp(-t**2) H(q) / (1 + 1.125 t) for t >= 0, with q = (t - 3.5) / (t + 3.5). H is nearly
flat, so one polynomial keeps the relative accuracy out to the subnormal numbers; the square, its exponential and the
quotient are pairs. gelu is x times the normal distribution function, the same with other constants. In float32 erfc and
gelu run in plain float64.
"""

import numpy as np

from .native import copysign, fabs, fma
from .vmath_core import (
    ONE_F32,
    elementary,
    fast_two_sum,
    float32s,
    polynomial,
    power_of_two_f64,
    scale_down_f64,
    two_sum,
)
from .vmath_exp import exp_f32, exp_kernel_f64, exp_short_f64, expm1_tail_f64, reduce_exp_f64

# erf(x) / x - 1 in x**2, x <= 0.85 (float32: 1), minimax, relative error in erf
ERF_F64 = (  # 2**-56.3
    0.1283791670955126, -0.3761263890318416, 0.1128379167097715, -0.026866170649792822, 0.005223977676092048,
    -0.0008548330234041285, 0.00012055459703480515, -1.4928852462813894e-05, 1.6513737689086695e-06,
    -1.6874527489079968e-07, 1.7513405439547144e-08, -1.7152961281420212e-09,
)  # fmt: skip
ERF_F32 = float32s(  # 2**-29.4
    0.12837917, -0.37612626, 0.11283579, -0.026853347, 0.005187162, -0.00079978525, 7.806897e-05,
)  # fmt: skip
# -log(erfc(x)) / x in x, 0.85 <= x <= 5.95 (float32: 1 to 3.95), minimax, relative error in erf
ERF_TAIL_F64 = (  # 2**-56.7
    1.128379173403547, 0.6366196632936942, 0.10277340382273013, -0.019131904353358046, -0.0001991443983791337,
    0.0016750797701093729, -0.0005566011213291842, -1.537067608928735e-05, 0.00010447672325480749,
    -6.0461238788757406e-05, 2.2065206832487352e-05, -5.905388233019648e-06, 1.2002496389840723e-06,
    -1.8473942028281526e-07, 2.0955123128064348e-08, -1.6556269484124078e-09, 8.14188369668433e-11,
    -1.8761363618206396e-12,
)  # fmt: skip
ERF_TAIL_F32 = float32s(  # 2**-31.2
    1.1286938, 0.63497156, 0.10652762, -0.024007352, 0.0037562249, -0.00035029105, 1.3932978e-05,
)  # fmt: skip
# H(q) = erfc(t) exp(t**2) (1 + 1.125 t), q = (t - 3.5) / (t + 3.5), 0 <= t <= 27.4, minimax, relative error 2**-56.7;
# c[0] is a pair. The slope 1.125 makes H flat at 0, so that the rounding of q does no harm.
ERFC_HI_F64, ERFC_LO_F64 = 0.7667624245689156, -4.575633179753874e-17
ERFC_F64 = (
    -0.2053086209417466, 0.09605706276323851, -0.01573111356077318, -0.0234257334424304, 0.02961194100898008,
    -0.020035787868509923, 0.008887394260357775, -0.0022539677472230616, -4.378273318662358e-05,
    0.0002701793227424102, -7.039567278608938e-05, -1.8226948063376202e-05, 1.2934895458852184e-05,
    6.478541855492277e-07, -1.984999745197661e-06, 5.3471637061699684e-08, 3.1246690950325955e-07,
    -9.74568981638566e-09, -4.9873589632547574e-08, -2.7846393684946366e-09, 5.911294013544326e-09,
    1.3170097210283007e-09,
)  # fmt: skip
# erfc(t / sqrt(2)) / 2 exp(t**2 / 2) (1 + 0.796875 t), q = (t - 5.5) / (t + 5.5), 0 <= t <= 38.8, 2**-57.9
GELU_HI_F64, GELU_LO_F64 = 0.3786415326821337, 2.2519791888380222e-17
GELU_F64 = (
    -0.09733602637360425, 0.051378948760916886, -0.014903072601739169, -0.0062628828359617165, 0.013319129578196873,
    -0.01166846929685862, 0.007055364851321639, -0.003086409815529138, 0.0008832163881909545,
    -7.589312344248502e-05, -6.485338874435348e-05, 2.994804146436714e-05, -9.112885975129886e-07,
    -3.5079518519523976e-06, 8.630660567467654e-07, 3.2427119094168354e-07, -1.6900950580653244e-07,
    -2.8791435968080288e-08, 2.673747582950847e-08, 3.444616029680923e-09, -3.22716448458971e-09,
    -5.437836400482052e-10, 1.0957194629846533e-10,
)  # fmt: skip
# the same for float32: slope 2, q = (t - 2.5) / (t + 2.5), t <= 10.2, 2**-30.6, and slope 1.5,
# q = (t - 3.5) / (t + 3.5), t <= 14.6, 2**-30.3
ERFC_F32 = (
    1.2648381836120337, -0.12235676198521794, -0.09902444924764744, 0.15762989698506075, -0.10296881724792814,
    0.032760460847687314, 0.0009443119641013528, -0.004374541577007464, 0.0004545064830314057, 0.0005979045281331295,
    -4.543856459204345e-05, -5.8662397554674634e-05,
)  # fmt: skip
GELU_F32 = (
    0.6646572097228862, -0.05299900446576073, -0.061747322159845415, 0.08789114027203564, -0.054917873388132615,
    0.01635068710318067, 0.0010919593796453904, -0.0023270086429203586, 0.00013453887616154953, 0.0003248424878287148,
    -5.913364144964334e-06, -2.805805279856809e-05,
)  # fmt: skip

ERF_SPLIT_F64 = 0.85
ERF_MAX_F64, ERFC_MAX_F64, GELU_MAX_F64 = 5.95, 27.3, 38.7  # beyond: 1, 0 and -0, rounded
ERF_MAX_F32 = np.float32(3.95)
ERFC_MAX_F32, GELU_MAX_F32 = 10.2, 14.6


@elementary
def erf_f64(x):
    a = fabs(x)
    z = x * x
    small = fma(x, polynomial(z, ERF_F64), x)
    a = ERF_MAX_F64 if a > ERF_MAX_F64 else a
    q = polynomial(a, ERF_TAIL_F64)
    u = -a * q
    n, r, rl = reduce_exp_f64(u)
    power = power_of_two_f64(n)
    large = fma(-power, r + expm1_tail_f64(r, rl + fma(-a, q, -u)), 1.0 - power)
    return copysign(large, x) if a > ERF_SPLIT_F64 else small


@elementary
def erf_f32(x):
    a = fabs(x)
    z = x * x
    small = fma(x, polynomial(z, ERF_F32), x)
    a = ERF_MAX_F32 if a > ERF_MAX_F32 else a
    large = ONE_F32 - exp_f32(-a * polynomial(a, ERF_TAIL_F32))
    return copysign(large, x) if a > ONE_F32 else small


@elementary
def tail_kernel_f64(t, shift, slope, high, low, coefficients):
    """H(q) / (1 + slope t) as a pair, q = (t - shift) / (t + shift), for t >= 0."""
    n, nl = two_sum(t, -shift)
    a, al = two_sum(t, shift)
    b = fma(slope, t, 1.0)
    bl = fma(slope, t, 1.0 - b)
    inverse = 1.0 / (a * b)
    inverse_a = b * inverse
    q = n * inverse_a
    q = fma(fma(-q, a, n) + fma(-q, al, nl), inverse_a, q)
    h, l = fast_two_sum(high, q * polynomial(q, coefficients))
    l = l + low
    r = a * inverse
    rl = fma(-r, bl, fma(-r, b, 1.0)) * r
    y = h * r
    return y, fma(h, r, -y) + fma(h, rl, l * r)


@elementary
def gaussian_tail_f64(u, ul, g, gl):
    """n, h, l with exp(u + ul) (g + gl) = 2**n (h + l), for -1000 < u <= 0."""
    n, r, rl = reduce_exp_f64(u)
    r, rl = fast_two_sum(r, rl + ul)
    e, el = exp_kernel_f64(r, rl)
    y = e * g
    h, l = fast_two_sum(y, fma(e, g, -y) + fma(e, gl, el * g))
    return n, h, l


@elementary
def erfc_f64(x):
    t = fabs(x)
    t = ERFC_MAX_F64 if t > ERFC_MAX_F64 else t
    g, gl = tail_kernel_f64(t, 3.5, 1.125, ERFC_HI_F64, ERFC_LO_F64, ERFC_F64)
    u = -t * t
    n, h, l = gaussian_tail_f64(u, fma(-t, t, -u), g, gl)
    y = scale_down_f64(h + l, n)
    return 2.0 - y if x < 0.0 else y


@elementary
def gelu_f64(x):
    """x (1 + erf(x / sqrt(2))) / 2; NaN for -inf, as in PyTorch."""
    t = fabs(x)
    t = GELU_MAX_F64 if t > GELU_MAX_F64 else t
    g, gl = tail_kernel_f64(t, 5.5, 0.796875, GELU_HI_F64, GELU_LO_F64, GELU_F64)
    half = -0.5 * t
    u = half * t
    n, h, l = gaussian_tail_f64(u, fma(half, t, -u), g, gl)
    power = power_of_two_f64(-100.0 if n < -100.0 else n)
    s, e = fast_two_sum(1.0, -power * h)
    negative = x < 0.0
    h = h if negative else s
    l = l if negative else fma(-power, l, e)
    v = -GELU_MAX_F64 if x < -GELU_MAX_F64 else x
    y = v * h
    y = scale_down_f64(y + fma(v, l, fma(v, h, -y)), n if negative else 0.0)
    y = y if x < np.inf else x
    return copysign(y, x) if x > -np.inf else np.nan


@elementary
def erfc_f32(x):
    x = np.float64(x)
    t = fabs(x)
    t = ERFC_MAX_F32 if t > ERFC_MAX_F32 else t
    a = t + 2.5
    b = fma(2.0, t, 1.0)
    inverse = 1.0 / (a * b)
    y = exp_short_f64(-t * t) * (polynomial((t - 2.5) * b * inverse, ERFC_F32) * (a * inverse))
    return np.float32(2.0 - y if x < 0.0 else y)


@elementary
def gelu_f32(x):
    """x (1 + erf(x / sqrt(2))) / 2; NaN for -inf, as in PyTorch."""
    x = np.float64(x)
    t = fabs(x)
    t = GELU_MAX_F32 if t > GELU_MAX_F32 else t
    a = t + 3.5
    b = fma(1.5, t, 1.0)
    inverse = 1.0 / (a * b)
    y = exp_short_f64(-0.5 * t * t) * (polynomial((t - 3.5) * b * inverse, GELU_F32) * (a * inverse))
    v = -GELU_MAX_F32 if x < -GELU_MAX_F32 else x
    y = v * (y if x < 0.0 else 1.0 - y)
    return np.float32(y if x > -np.inf else np.nan)
