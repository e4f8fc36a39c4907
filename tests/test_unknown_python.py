"""Under a Python whose objects machine code does not know, everything goes the way that is written in Python, with the same bits.

A child process takes itself for a Python without a GIL, which `kernels/entrance.py` refuses to look into.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

UNKNOWN = """
    import sysconfig
    sysconfig.get_config_vars()["Py_GIL_DISABLED"] = 1
"""

PROGRAMS = """
    import hashlib, json, sys, warnings
    sys.path.insert(0, "tests")
    import numpy as np
    import fastgrad as torch
    import programs
    from fastgrad.kernels import entrance

    try:
        entrance.python_facts()
        known = True
    except entrance.Unknown:
        known = False
    warnings.filterwarnings("ignore", "compile: .* runs its Python in every call", RuntimeWarning)
    digest = hashlib.sha256()

    def note(*tensors):
        for t in tensors:
            array = programs.value_of(t)
            digest.update(str((array.dtype, array.shape)).encode() + array.tobytes())

    for seed in range({first}, {first} + {count}):
        program = programs.generate(seed)
        programs.check(program, torch, None, ["eager", "tier0", "draft", "compiled", "captured", "looped"])
        for event in programs.run(program, torch).events:
            digest.update(repr((event.label, type(event.error).__name__)).encode())
            digest.update(event.value.tobytes() if isinstance(event.value, np.ndarray) else b"")
    torch.set_tier(0)
    for make in (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: torch.optim.Adam(p, lr=0.01)):
        for wrap in (torch.compile, lambda f: f):
            torch.manual_seed({first})
            model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
            optimizer, held = make(model.parameters()), []

            def step(x, y):
                optimizer.zero_grad()
                loss = ((model(x) - y) ** 2).mean()
                loss.backward()
                optimizer.step()
                return loss

            call = wrap(step)
            for i in range(40):
                x = torch.randn(5, 3)
                loss = call(x, x.sum(1, keepdim=True))
                if i % 5 == 0:
                    held.append(loss)  # earlier results keep their values
            note(*held, *model.parameters(), *[p.grad for p in model.parameters()])
    print(json.dumps([known, entrance.runs[0], digest.hexdigest()]))
"""


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_without_tables_all_modes_give_the_same_bits(python: Callable[..., Any], first: int) -> None:
    source = PROGRAMS.format(first=first, count=20)
    known, quick, bits = json.loads(python(source).stdout)
    unknown, never, written = json.loads(python(UNKNOWN + source).stdout)
    assert known and quick > 0, "machine code goes through tables"
    assert not unknown and never == 0, "nothing does"
    assert bits == written
