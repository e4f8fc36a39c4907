"""The elementary functions: accuracy against mpmath and SciPy, special values against NumPy, lanes against one by one.

Every function is called as kernels call it: from a loop over typed pointers in a `cfunc`, compiled once per function
and dtype. An error is measured in units in the last place of the exact result in the dtype under test.
"""

import ctypes
import re
from functools import cache

import llvmlite.binding as llvm
import mpmath
import numpy as np
import pytest
import scipy.special
from numba import cfunc, types

from fastgrad.kernels import native, vmath

DTYPES = [np.float64, np.float32]
SUFFIX = {np.float64: "f64", np.float32: "f32"}
INF = np.inf


def mp_gelu_tanh(x):
    return x / (1 + mpmath.exp(-2 * mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)))


def mp_softplus(x):
    return mpmath.log1p(mpmath.exp(x)) if x < 0 else x + mpmath.log1p(mpmath.exp(-x))


def np_gelu_tanh(x):
    return x * scipy.special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))


# name: exact function, float64 reference for float32, domain of finite results, where to look closely
UNARY = {
    "exp": (mpmath.exp, np.exp, (-745.5, 709.7), [0, -708.4]),
    "exp2": (lambda x: mpmath.mpf(2) ** x, np.exp2, (-1075, 1023.9), [0, 0.5, -1022]),
    "expm1": (mpmath.expm1, np.expm1, (-60, 709.7), [0, 0.35, -0.35, 37.2]),
    "log": (mpmath.log, np.log, (0, INF), [1, 1.41, 0.71]),
    "log2": (lambda x: mpmath.log(x, 2), np.log2, (0, INF), [1, 1.41, 0.71]),
    "log10": (mpmath.log10, np.log10, (0, INF), [1, 1.41, 0.71]),
    "log1p": (mpmath.log1p, np.log1p, (-1, INF), [0, 0.41, -0.29, -1 + 1e-9]),
    "sin": (mpmath.sin, np.sin, (-(2.0**24), 2.0**24), [0, 0.78, 3.14, 1e4]),
    "cos": (mpmath.cos, np.cos, (-(2.0**24), 2.0**24), [0, 0.78, 1.57, 1e4]),
    "tan": (mpmath.tan, np.tan, (-(2.0**24), 2.0**24), [0, 0.78, 1.57, 1e4]),
    "asin": (mpmath.asin, np.arcsin, (-1, 1), [0, 0.5, 1 - 1e-9]),
    "acos": (mpmath.acos, np.arccos, (-1, 1), [0, 0.5, -0.5, 1 - 1e-9]),
    "atan": (mpmath.atan, np.arctan, (-INF, INF), [0.41, 2.41, 1]),
    "sinh": (mpmath.sinh, np.sinh, (-710.4, 710.4), [0, 0.35, 18.5]),
    "cosh": (mpmath.cosh, np.cosh, (-710.4, 710.4), [0, 0.35, 18.5]),
    "tanh": (mpmath.tanh, np.tanh, (-INF, INF), [0.17, 0.35, 0.625, 18.2]),
    "asinh": (mpmath.asinh, np.arcsinh, (-INF, INF), [0.5, 1.1]),
    "acosh": (mpmath.acosh, np.arccosh, (1, INF), [1 + 1e-9, 1.06]),
    "atanh": (mpmath.atanh, np.arctanh, (-1, 1), [0.17, 0.5, 1 - 1e-9]),
    "sigmoid": (lambda x: 1 / (1 + mpmath.exp(-x)), scipy.special.expit, (-744, INF), [0, -708, 36]),
    "logsigmoid": (lambda x: -mp_softplus(-x), lambda x: 0 - np.logaddexp(0, -x), (-INF, 744), [0, 20, 36.5]),
    "softplus": (mp_softplus, lambda x: np.logaddexp(0, x), (-744, INF), [0, -20, -36.5]),
    "silu": (lambda x: x / (1 + mpmath.exp(-x)), lambda x: x * scipy.special.expit(x), (-750, INF), [0, -708]),
    "gelu": (
        lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
        lambda x: x * scipy.special.ndtr(x),
        (-38.4, INF),
        [0, -0.3, -5, 5],
    ),
    "gelu_tanh": (mp_gelu_tanh, np_gelu_tanh, (-21.5, INF), [0, -0.3, -5, 5]),
    "erf": (mpmath.erf, scipy.special.erf, (-INF, INF), [0.85, 1, 5.9]),
    "erfc": (mpmath.erfc, scipy.special.erfc, (-INF, 26.5), [0, 1, -1]),
    "sqrt": (mpmath.sqrt, np.sqrt, (0, INF), [1]),
    "rsqrt": (lambda x: 1 / mpmath.sqrt(x), lambda x: 1 / np.sqrt(x), (0, INF), [1]),
    "cbrt": (lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)), np.cbrt, (-INF, INF), [1, 8]),
}
BINARY = {
    "atan2": (mpmath.atan2, np.arctan2),
    "hypot": (mpmath.hypot, np.hypot),
    "pow": (lambda x, y: x**y, np.power),
}
# float32 arguments whose results are finite, where this differs from the float64 domain
DOMAIN_F32 = {
    "exp": (-103.9, 88.7), "exp2": (-149, 127.9), "expm1": (-60, 88.7), "sinh": (-89.4, 89.4), "cosh": (-89.4, 89.4),
    "sin": (-(2.0**20), 2.0**20), "cos": (-(2.0**20), 2.0**20), "tan": (-(2.0**20), 2.0**20), "sigmoid": (-103, INF),
    "logsigmoid": (-INF, 103), "softplus": (-103, INF), "silu": (-107, INF), "gelu": (-14, INF),
    "gelu_tanh": (-10, INF), "erfc": (-INF, 10),
}  # fmt: skip
ODD = ["sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "erf", "cbrt"]
EVEN = ["cos", "cosh"]


@cache
def kernel(name, dtype):
    """The compiled loop over a function, as kernels hold it."""
    function = getattr(vmath, f"{name}_{SUFFIX[dtype]}")
    at = {np.float64: native.float64_at, np.float32: native.float32_at}[dtype]
    if name in BINARY:

        def loop(record):
            y, a, b = at(record[1]), at(record[2]), at(record[3])
            for i in range(np.uintp(record[0])):
                y[i] = function(a[i], b[i])

    else:

        def loop(record):
            y, a = at(record[1]), at(record[2])
            for i in range(np.uintp(record[0])):
                y[i] = function(a[i])

    return cfunc(types.void(types.CPointer(types.int64)), error_model="numpy")(loop)


def call(name, dtype, *arguments):
    """The function applied to arrays."""
    arguments = [np.ascontiguousarray(a, dtype) for a in arguments]
    y = np.empty_like(arguments[0])
    record = np.array([y.size, y.ctypes.data, *(a.ctypes.data for a in arguments)], np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(kernel(name, dtype).address)(record.ctypes.data)
    return y


def sample(dtype, low, high, points, n, seed=0):
    """Arguments between low and high: evenly spread, over all exponents, and close to the points."""
    random = np.random.default_rng(seed)
    limits = np.finfo(dtype)
    a, b = max(low, -60), min(high, 60)
    parts = [random.uniform(a, b, n)]
    if low < -60 or high > 60:
        parts.append(random.uniform(max(low, -1e6), min(high, 1e6), n))
    magnitudes = np.exp2(random.uniform(limits.minexp - limits.nmant, limits.maxexp - 0.01, 2 * n))
    parts.append(magnitudes * random.choice([-1.0, 1.0], 2 * n))
    for point in points:
        spread = np.exp2(random.uniform(-limits.nmant, -2, n // 2)) * random.choice([-1.0, 1.0], n // 2)
        parts.append(point + spread * max(1, abs(point)))
    with np.errstate(all="ignore"):
        x = np.concatenate(parts).astype(dtype)
    return x[(x >= low) & (x <= high) & (x != 0)]


def errors(y, high, low):
    """Distance of y from the exact high + low, in units in the last place of the result."""
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(high)
        limits = np.finfo(y.dtype)
        unit = np.ldexp(1.0, np.maximum(exponent - limits.nmant - 1, limits.minexp - limits.nmant))
        error = np.abs((y.astype(np.float64) - high) - low) / unit
        return np.where(np.isfinite(y), error, np.where(y == high.astype(y.dtype), 0, INF))


def exact(function, *arguments):
    """Correct results as unevaluated sums of two float64."""
    with mpmath.workprec(160):
        values = [function(*(mpmath.mpf(float(a)) for a in row)) for row in zip(*arguments, strict=True)]
        high = np.array([float(v) for v in values])
        low = np.array([float(v - h) if np.isfinite(h) else 0.0 for v, h in zip(values, high, strict=True)])
    return high, low


def assert_within(bound, name, y, high, low, *arguments):
    error = errors(y, high, low)
    worst = np.argmax(error)
    at = ", ".join(repr(a[worst]) for a in arguments)
    assert error[worst] <= bound, f"{name}({at}) = {y[worst]!r}: {error[worst]:.3f} ulp"


def assert_same(y, expected):
    """The same values, signs of zeros included, and NaN in the same places."""
    np.testing.assert_array_equal(y, expected)
    zero = expected == 0
    np.testing.assert_array_equal(np.signbit(y[zero]), np.signbit(expected[zero]))


def special_values(dtype):
    limits = np.finfo(dtype)
    values = [
        0, 1, 2, 3, 0.5, 1.5, 20, 100, 1e4, limits.tiny, limits.smallest_subnormal, limits.tiny / 3, limits.eps,
        1 - limits.epsneg, 1 + limits.eps, limits.max, INF,
    ]  # fmt: skip
    return np.array([*values, *(-v for v in values), np.nan], dtype)


@pytest.mark.parametrize("name", UNARY)
def test_float64_is_within_one_ulp(name):
    function, _, (low, high), points = UNARY[name]
    x = sample(np.float64, low, high, points, 400)
    assert_within(2 if name in ("tan", "erfc") else 1, name, call(name, np.float64, x), *exact(function, x), x)


@pytest.mark.parametrize("name", UNARY)
def test_float32_is_within_two_ulp(name):
    _, reference, (low, high), points = UNARY[name]
    low, high = DOMAIN_F32.get(name, (low, high))
    x = sample(np.float32, low, high, points, 100_000)
    with np.errstate(all="ignore"):
        expected = reference(x.astype(np.float64))
    assert_within(2, name, call(name, np.float32, x), expected, 0.0, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_special_values_are_those_of_numpy(name, dtype):
    reference = UNARY[name][1]
    x = special_values(dtype)
    if name in ("sin", "cos", "tan"):
        x = x[~(np.abs(x) > 1e5)]
    if name in ("silu", "gelu", "gelu_tanh"):
        x = x[x != -INF]  # below
    with np.errstate(all="ignore"):
        expected = reference(x.astype(np.float64)).astype(dtype)
    y = call(name, dtype, x)
    exceptional = ~np.isfinite(expected) | (expected == 0) & ((x == 0) | ~np.isfinite(x))
    assert_same(y[exceptional], expected[exceptional])
    finite = np.isfinite(expected)
    assert np.isfinite(y[finite]).all()
    np.testing.assert_array_equal(np.signbit(y[finite]), np.signbit(expected[finite]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh"])
def test_minus_infinity_gives_nan_as_in_pytorch_and_large_arguments_give_zero(name, dtype):
    y = call(name, dtype, np.array([-INF, -1e30, -1000.0]))
    assert_same(y, np.array([np.nan, -0.0, -0.0], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_simd_lanes_and_remainder_have_the_same_bits(name, dtype):
    random = np.random.default_rng(1)
    arguments = [random.normal(0, 3, 70).astype(dtype) for _ in range(2 if name in BINARY else 1)]
    arguments[0][:34] = special_values(dtype)[:34]
    one_by_one = np.concatenate([call(name, dtype, *(a[i : i + 1] for a in arguments)) for i in range(70)])
    for n in range(1, 71):
        assert_same(call(name, dtype, *(a[:n] for a in arguments)), one_by_one[:n])


@pytest.mark.skipif(llvm.get_host_cpu_features().get("fma") is False, reason="fma is a call on this CPU")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_the_loop_is_vectorised(name, dtype):
    assert re.search(r"store <\d+ x ", kernel(name, dtype).inspect_llvm())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ODD + EVEN)
def test_symmetry_is_exact(name, dtype):
    low, high = DOMAIN_F32.get(name, UNARY[name][2])
    x = sample(dtype, low, high, [], 1000)
    y = call(name, dtype, x)
    assert_same(call(name, dtype, -x), -y if name in ODD else y)


def pairs(name, dtype, n, seed=0):
    """Two arguments for a function of two: comparable, of any exponent, and nearly equal."""
    random = np.random.default_rng(seed)
    limits = np.finfo(dtype)
    if name == "pow":
        base = np.exp2(np.concatenate([random.uniform(-3, 3, n), random.normal(0, 1e-3, n)]))
        a = np.concatenate([base, np.exp2(random.uniform(limits.minexp, limits.maxexp - 1, n))]).astype(dtype)
        a[:2] = 1.4191285073488031, 0.7124340269647689  # logarithms of numbers far from a power of two
        largest = limits.maxexp * 0.999 / np.maximum(np.abs(np.log2(a.astype(np.float64))), 1e-9)
        return a, (largest * np.append([0.999, -0.999], random.uniform(-1, 1, 3 * n - 2))).astype(dtype)
    a = random.normal(0, 10, n)
    signs = random.choice([-1.0, 1.0], (2, n))
    wide = np.exp2(random.uniform(limits.minexp - limits.nmant, limits.maxexp - 1.01, (2, n))) * signs
    a, b = np.concatenate([a, wide[0], a]), np.concatenate([random.normal(0, 10, n), wide[1], a * (1 + 1e-3 * a)])
    return a.astype(dtype), b.astype(dtype)


@pytest.mark.parametrize("name", BINARY)
def test_two_arguments_in_float64(name):
    a, b = pairs(name, np.float64, 700)
    bound = 2 if name == "pow" else 1
    assert_within(bound, name, call(name, np.float64, a, b), *exact(BINARY[name][0], a, b), a, b)


@pytest.mark.parametrize("name", BINARY)
def test_two_arguments_in_float32(name):
    a, b = pairs(name, np.float32, 100_000)
    with np.errstate(all="ignore"):
        expected = BINARY[name][1](a.astype(np.float64), b.astype(np.float64))
    assert_within(2, name, call(name, np.float32, a, b), expected, 0.0, a, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BINARY)
def test_special_values_of_two_arguments_are_those_of_numpy(name, dtype):
    a, b = (grid.ravel() for grid in np.meshgrid(special_values(dtype), special_values(dtype)))
    with np.errstate(all="ignore"):
        expected = BINARY[name][1](a, b)
    y = call(name, dtype, a, b)
    near = np.isclose(y, expected, rtol=4 * np.finfo(dtype).eps, atol=0)
    y = np.where(near & (expected != 0) & np.isfinite(expected), expected, y)
    assert_same(y, expected)


def test_exact_powers_are_exact():
    base, exponent = (grid.ravel() for grid in np.meshgrid(np.arange(-12.0, 13), np.arange(0.0, 10)))
    np.testing.assert_array_equal(call("pow", np.float64, base, exponent), base**exponent)
    n = np.arange(-1074.0, 1024)
    np.testing.assert_array_equal(call("exp2", np.float64, n), np.ldexp(1.0, n.astype(int)))
    np.testing.assert_array_equal(call("log2", np.float64, np.ldexp(1.0, n.astype(int))), n)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_trigonometry_next_to_multiples_of_a_right_angle(name):
    with mpmath.workprec(120):
        multiples = np.concatenate([np.arange(1, 200), np.random.default_rng(0).integers(1, 2**23, 200)])
        x = np.array([float(int(n) * mpmath.pi / 2) for n in multiples])
    function = UNARY[name][0]
    bound = 2 if name == "tan" else 1
    assert_within(bound, name, call(name, np.float64, x), *exact(function, x), x)
    x = x[x < vmath.TRIG_LIMIT_F32].astype(np.float32)
    assert_within(2, name, call(name, np.float32, x), *exact(function, x), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_the_full_range_continues_the_vector_path(name, dtype):
    full = getattr(vmath, f"{name}_full_{SUFFIX[dtype]}")
    limit = {np.float64: vmath.TRIG_LIMIT_F64, np.float32: vmath.TRIG_LIMIT_F32}[dtype]
    random = np.random.default_rng(2)
    x = np.concatenate([random.uniform(-limit, limit, 300), [limit, -limit, 0.0, -0.0]]).astype(dtype)
    assert_same(np.array([full(v) for v in x], dtype), call(name, dtype, x))
    largest = np.finfo(dtype).maxexp
    x = np.exp2(random.uniform(np.log2(limit), largest, 300)) * random.choice([-1.0, 1.0], 300)
    x = np.concatenate([x, [limit * 1.01, np.finfo(dtype).max, 2.0 ** (largest - 1)]]).astype(dtype)
    with mpmath.workprec(1300):  # mpmath reduces arguments to the working precision
        values = [UNARY[name][0](mpmath.mpf(float(v))) for v in x]
        high = np.array([float(v) for v in values])
        low = np.array([float(v - h) for v, h in zip(values, high, strict=True)])
    assert_within(2 if name == "tan" else 1, name, np.array([full(v) for v in x], dtype), high, low, x)
    assert all(np.isnan(full(dtype(v))) for v in (INF, -INF, np.nan))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "function", "low", "high", "bound"),
    [
        ("lgamma", mpmath.loggamma, 1e-3, 170, 4),
        ("digamma", mpmath.digamma, 1e-3, 1e4, 4),
        ("erfinv", mpmath.erfinv, -1, 1, 2),
    ],
)
def test_scalar_functions(name, function, low, high, bound, dtype):
    f = getattr(vmath, f"{name}_{SUFFIX[dtype]}")
    random = np.random.default_rng(3)
    x = np.concatenate([random.uniform(low, min(high, 10), 300), np.exp2(random.uniform(-9, np.log2(high), 300))])
    if name == "erfinv":
        x = np.concatenate([x, 1 - np.exp2(random.uniform(-np.finfo(dtype).nmant, -1, 200))])
    x = x.astype(dtype)
    assert_within(bound, name, np.array([f(v) for v in x], dtype), *exact(function, x), x)


def test_special_values_of_scalar_functions():
    special = np.array([0.0, -0.0, -1.0, -2.0, INF, np.nan])
    assert_same(np.array([vmath.digamma_f64(v) for v in special]), np.array([-INF, INF, np.nan, np.nan, INF, np.nan]))
    assert_same(np.array([vmath.lgamma_f64(v) for v in special]), scipy.special.gammaln(special))
    special = np.array([1.0, -1.0, 0.0, -0.0, 1.5, np.nan])
    assert_same(np.array([vmath.erfinv_f64(v) for v in special]), np.array([INF, -INF, 0.0, -0.0, np.nan, np.nan]))
    x = np.linspace(-9.9, -0.1, 50)
    np.testing.assert_allclose([vmath.digamma_f64(v) for v in x], scipy.special.psi(x), rtol=1e-12, atol=1e-13)
