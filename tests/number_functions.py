# ruff: noqa: UP032
"""Functions of a tensor, an int and a float: statements that hand numbers to code written in C, which takes them as they are.

`FUNCTIONS` has all of them. Numbers that differ from call to call must be noticed where they decide what a compiled function does.
"""

from __future__ import annotations

import collections
import itertools
import math
from typing import Any


class Float(float):
    def half(self) -> float:
        return self / 2


class Int(int):
    pass


class List(list):  # type: ignore[type-arg]
    pass


class Tuple(tuple):  # type: ignore[type-arg]
    pass


class Dict(dict):  # type: ignore[type-arg]
    pass


def own_float(x: Any, n: int, k: float) -> Any:
    return x * Float(k).half() + Float(n)


def own_int(x: Any, n: int, k: float) -> Any:
    return x * Int(n) + Int(n + 1)


def own_list(x: Any, n: int, k: float) -> Any:
    return x * sum(List([n, k])) + len(List(range(n)))


def own_tuple(x: Any, n: int, k: float) -> Any:
    return x * Tuple([n, k])[1]


def own_dict(x: Any, n: int, k: float) -> Any:
    return x * Dict(a=k)["a"] + Dict({n: 1.0})[n]


def list_pop(x: Any, n: int, k: float) -> Any:
    items = [1.0, 2.0, 3.0, 4.0]
    v = items.pop(n)
    return x * v + items[0]


def list_insert(x: Any, n: int, k: float) -> Any:
    items = [1.0, 2.0, 3.0, 4.0]
    items.insert(n, k)
    return x * items[2] + items[-1]


def list_del(x: Any, n: int, k: float) -> Any:
    items = [1.0, 2.0, 3.0, 4.0]
    del items[n]
    return x * items[0] + items[-1]


def list_set(x: Any, n: int, k: float) -> Any:
    items = [1.0, 2.0, 3.0, 4.0]
    items[n] = k
    return x * items[0] + items[2]


def list_setslice(x: Any, n: int, k: float) -> Any:
    items = [1.0, 2.0, 3.0, 4.0]
    items[n:] = [k, 9.0]
    return x * items[-2] + len(items)


def list_delslice(x: Any, n: int, k: float) -> Any:
    items = [1.0, 2.0, 3.0, 4.0]
    del items[:n]
    return x * items[0] + len(items)


def list_index(x: Any, n: int, k: float) -> Any:
    items = [0, 1, 2, 3]
    return x * items.index(n) + items.count(n)


def list_remove(x: Any, n: int, k: float) -> Any:
    items = [0, 1, 2, 3]
    items.remove(n)
    return x * items[0]


def list_mul(x: Any, n: int, k: float) -> Any:
    return x * len([1.0] * n) + sum(n * [k])


def list_imul(x: Any, n: int, k: float) -> Any:
    items = [1.0]
    items *= n
    return x * len(items)


def deque_rotate(x: Any, n: int, k: float) -> Any:
    d = collections.deque([1.0, 2.0, 3.0, 4.0])
    d.rotate(n)
    return x * d[0]


def deque_maxlen(x: Any, n: int, k: float) -> Any:
    d = collections.deque([1.0, 2.0, 3.0, 4.0], n + 1)
    return x * d[0] + len(d)


def deque_maxlen_kw(x: Any, n: int, k: float) -> Any:
    d = collections.deque([1.0, 2.0, 3.0, 4.0], maxlen=n + 1)
    return x * d[0] + len(d)


def dict_pop(x: Any, n: int, k: float) -> Any:
    d = {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}
    v = d.pop(n)
    return x * v + sum(d)


def dict_del(x: Any, n: int, k: float) -> Any:
    d = {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}
    del d[n]
    return x * sum(d.values())


def dict_setdefault(x: Any, n: int, k: float) -> Any:
    d = {0: 1.0, 1: 2.0}
    return x * d.setdefault(n, k) + len(d)


def set_add(x: Any, n: int, k: float) -> Any:
    s = {0, 1}
    s.add(n)
    s.discard(n - 1)
    return x * len(s) + sum(s)


def enumerate_start(x: Any, n: int, k: float) -> Any:
    return x * sum(i for i, _ in enumerate([1, 2], n)) + [i for i, _ in enumerate("ab", start=n)][1]


def repeat_times(x: Any, n: int, k: float) -> Any:
    return x * sum(itertools.repeat(k, n)) + len(list(itertools.repeat(1, times=n)))


def islice_steps(x: Any, n: int, k: float) -> Any:
    return x * sum(itertools.islice([1.0, 2.0, 3.0, 4.0, 5.0], n, None, n + 1))


def combos(x: Any, n: int, k: float) -> Any:
    return x * len(list(itertools.combinations([1, 2, 3, 4], n))) + len(list(itertools.product([1, 2], repeat=n)))


def perms(x: Any, n: int, k: float) -> Any:
    return x * len(list(itertools.permutations([1, 2, 3], n)))


def accumulate_initial(x: Any, n: int, k: float) -> Any:
    return x * list(itertools.accumulate([1.0, 2.0], initial=k))[-1] + list(itertools.accumulate([1, 2], initial=n))[-1]


def count_from(x: Any, n: int, k: float) -> Any:
    return x * next(itertools.count(n)) + next(itertools.count(k, 0.5))


def fmt_percent(x: Any, n: int, k: float) -> Any:
    return (
        x * int("%d" % n)  # noqa: UP031
        + float("%.2f" % k)  # noqa: UP031
        + len("%s %r" % (n, k))  # noqa: UP031
        + len("{:03d}".format(n))
        + int("{}".format(n))
        + int("{n}".format(n=n))
    )


def str_methods(x: Any, n: int, k: float) -> Any:
    return x * len("ab".ljust(n)) + len("x".zfill(n)) + len("a,b,c".split(",", n)) + "abcabc".find("a", n)


def str_repeat(x: Any, n: int, k: float) -> Any:
    return x * len("ab" * n) + len(n * "a")


def str_index(x: Any, n: int, k: float) -> Any:
    return x * ord("abcd"[n]) + len("abcd"[n:])


def range_steps(x: Any, n: int, k: float) -> Any:
    return x * sum(range(0, 9, n + 1)) + (n in range(2)) + range(5).index(n) + len(range(n, 7))


def bytes_n(x: Any, n: int, k: float) -> Any:
    return x * len(bytes(n)) + bytes([n, 1])[0] + len(bytearray(n)) + int.from_bytes(n.to_bytes(2, "big"), "big")


def bytearray_append(x: Any, n: int, k: float) -> Any:
    b = bytearray(b"a")
    b.append(n)
    b.insert(n % 1, n)
    return x * b[0] + sum(b)


def round_kw(x: Any, n: int, k: float) -> Any:
    return x * round(number=1.23456, ndigits=n) + pow(base=2, exp=n) + pow(2, n, mod=5)


def sorted_reverse(x: Any, n: int, k: float) -> Any:
    return x * sorted([3.0, 1.0], reverse=n % 2)[0] + sorted([1.0, 2.0], reverse=bool(n))[0]


def list_sort_reverse(x: Any, n: int, k: float) -> Any:
    items = [1.0, 3.0, 2.0]
    items.sort(reverse=n % 2 == 0)
    return x * items[0]


def math_kw(x: Any, n: int, k: float) -> Any:
    return (
        x * math.isclose(k, 0.5, rel_tol=k / 10)
        + math.prod([1.0, 2.0], start=k)
        + math.perm(5, n)
        + math.ldexp(1.0, n)
        + math.isqrt(n)
        + math.lcm(n + 1, 4)
        + math.frexp(k)[0]
        + math.modf(k)[0]
        + math.nextafter(k, 9) * 0
        + sum([1.0, 2.0], start=k)
        + math.log(k + 1, n + 2)
        + math.dist((k,), (n,))
    )


def ternaries(x: Any, n: int, k: float) -> Any:
    return x * (k or 7.0) + (n and k) + (not n) + (1 if n else 2) + (k if k else n) + (n if n > k else k)


def chain_compare(x: Any, n: int, k: float) -> Any:
    return x * (0 <= n < 2 <= 3) + (0 < k <= 1) + (n == k * 2) + (n != 1) + (n is None) + (k is not None)


def while_loop(x: Any, n: int, k: float) -> Any:
    i = 0
    s = k
    while i < n:
        s = s * 2 + i
        i += 1
    return x * s + i


def for_else(x: Any, n: int, k: float) -> Any:
    for j in range(4):
        if j == n:
            break
    else:
        return x * 100
    return x * j


def try_index(x: Any, n: int, k: float) -> Any:
    try:
        return x * [1.0, 2.0][n]
    except IndexError:
        return x * -1.0


def zero_div(x: Any, n: int, k: float) -> Any:
    try:
        return x * (1 / n)
    except ZeroDivisionError:
        return x * 5


def unpack_star(x: Any, n: int, k: float) -> Any:
    a, *b = [n, k, 3.0]
    (c, d), e = (n, k), 1
    return x * a + sum(b) + c + d + e


def augmented(x: Any, n: int, k: float) -> Any:
    a = 2.0
    a += k
    a *= n
    a -= 1
    a /= 2
    b = 10
    b //= n + 1
    b %= 4
    b **= 2
    b <<= 1
    b |= n
    b &= 7
    b ^= n
    return x * a + b


def complex_numbers(x: Any, n: int, k: float) -> Any:
    return x * abs(complex(k, n)) + complex(n, k).imag


def bits(x: Any, n: int, k: float) -> Any:
    return (
        x * (n & 1)
        + (n | 2)
        + (n ^ 3)
        + (~n)
        + (n << 2)
        + (8 >> n)
        + n.bit_length()
        + n.bit_count()
        + (-n)
        + abs(-n)
        + (+n)
        + divmod(7, n + 1)[1]
    )


def default_args(x: Any, n: int, k: float) -> Any:
    def f(a, b=k, *c, d=n, **e):
        return a * b + sum(c) + d + len(e)

    return f(x) + f(x, n, k, d=k, z=1)


def comprehension_nest(x: Any, n: int, k: float) -> Any:
    return (
        x * sum([i * j * k for i in range(n) for j in range(i) if j != n])
        + len({i % (n + 1) for i in range(5)})
        + sum({i: k for i in range(n)}.values())
    )


def lambda_closure(x: Any, n: int, k: float) -> Any:
    fs = [lambda y, i=i: y * i + k for i in range(n)]
    return sum([f(x) for f in fs], x)


def global_min_max(x: Any, n: int, k: float) -> Any:
    return x * min(n, k) + max(n, k, 1) + min([n, k]) + max((n, k), default=3) + sum((n, k)) + any((n, k)) + all([n, k])


FUNCTIONS = [
    f for f in list(globals().values()) if getattr(f, "__module__", None) == __name__ and not isinstance(f, type)
]
