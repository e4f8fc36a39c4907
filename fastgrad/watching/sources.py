"""The source of a function, and the code of its rewritten copy.

A function's syntax tree is looked up in its file and compiled again; it is the function's if that gives the same code. So a
file that has changed since, or two lambdas on one line, are never taken for each other.
"""

from __future__ import annotations

import ast
import copy
import functools
import linecache
import operator
import sys
import types
from typing import Any

from .rewrite import HOOKS, Rewriter, Unwatchable

_FUTURES = 0x1FF0000  # the flags that `from __future__ import ...` sets
_ASYNCHRONOUS = 0x80 | 0x200 | 0x100
UNKNOWN = "its source text is not known"
_KEPT = 4096  # functions whose code is remembered


def _flags_of_places() -> int:
    """The flags that tell where a function stands: in another one, in a class. They are other ones in every Python."""
    inside = (
        "def f(self): return self\nclass A:\n    def f(self): return self\ndef g():\n    def f(self): return self\n"
    )
    stack, flags = [compile(inside, "places", "exec")], []
    while stack:
        code = stack.pop()
        stack += [c for c in code.co_consts if isinstance(c, types.CodeType)]
        if code.co_name == "f":
            flags.append(code.co_flags)
    return functools.reduce(operator.or_, flags) & ~functools.reduce(operator.and_, flags)


_PLACE = _flags_of_places()


@functools.lru_cache(maxsize=64)
def _tree(source: str) -> tuple[list[tuple[ast.AST, str | None]], list[str]]:
    """All functions of a source text, each with the class around it, and the names that it imports for all of them."""
    found: list[tuple[ast.AST, str | None]] = []
    imported: list[str] = []
    stack: list[tuple[ast.AST, str | None, bool]] = [(ast.parse(source), None, True)]
    while stack:
        node, owner, outside = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            found.append((node, owner))
        if isinstance(node, (ast.Import, ast.ImportFrom)) and outside:
            imported += [(a.asname or a.name).split(".", 1)[0] for a in node.names if a.name != "*"]
        inner = node.name if isinstance(node, ast.ClassDef) else owner
        outside = outside and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef))
        stack += [(child, inner, outside) for child in ast.iter_child_nodes(node)]
    return found, sorted(set(imported))


def _text(code: types.CodeType, names: dict[str, Any]) -> str:
    """The text of the file that a function was written in."""
    if code.co_filename == "<string>" and names.get("__name__") == "__main__" and "-c" in sys.orig_argv[:-1]:
        return sys.orig_argv[sys.orig_argv.index("-c") + 1]
    return "".join(linecache.getlines(code.co_filename, names))


def _inner(node: Any, free: tuple[str, ...], code: types.CodeType, imported: list[str]) -> types.CodeType | None:
    """The code of a function's tree, compiled with the given free names; methods of imported names have code of their own."""
    parameters = ast.arguments([], [ast.arg(name) for name in free], None, [], [], None, [])
    body: list[Any] = [ast.Return(node) if isinstance(node, ast.Lambda) else node]
    if isinstance(node, ast.FunctionDef) and node.name not in free:
        body.insert(0, ast.Global([node.name]))  # a function that calls itself does so by a global name
    around = ast.FunctionDef("around", parameters, body, [])
    around.type_params = []  # type: ignore[attr-defined]
    imports: list[ast.stmt] = [ast.Import([ast.alias(name)]) for name in imported]
    module = ast.fix_missing_locations(ast.Module([*imports, ast.copy_location(around, node)], []))
    made = compile(module, code.co_filename, "exec", code.co_flags & _FUTURES, True)
    outer = next(c for c in made.co_consts if isinstance(c, types.CodeType))
    return next((c for c in outer.co_consts if isinstance(c, types.CodeType) and c.co_name == code.co_name), None)


def _comparable(code: types.CodeType) -> types.CodeType:
    return code.replace(co_flags=code.co_flags & ~_PLACE)


def _is_rewritten(code: types.CodeType) -> bool:
    """Whether pytest has put its own text in for the function's assertions."""
    return any([name.startswith("@py") for name in (*code.co_names, *code.co_varnames)])


def _find(code: types.CodeType, names: dict[str, Any]) -> tuple[Any, str | None]:
    try:
        functions, imported = _tree(_text(code, names))
    except (SyntaxError, ValueError, OSError):
        functions, imported = [], []
    found = []
    for node, owner in functions:
        decorators = getattr(node, "decorator_list", [])
        first = min([x.lineno for x in (node, *decorators)])
        if first == code.co_firstlineno and getattr(node, "name", "<lambda>") == code.co_name:
            found.append((node, owner))
    for node, owner in found:
        plain = copy.deepcopy(node)
        if owner is not None:
            _Mangler(owner).visit(plain)
        try:
            again = _inner(plain, code.co_freevars, code, imported)
        except (SyntaxError, ValueError):
            continue
        if again is not None and _comparable(again) == _comparable(code):
            return node, owner
    if len(found) == 1 and _is_rewritten(code):
        return found[0]
    raise Unwatchable(UNKNOWN, code.co_firstlineno)


class _Mangler(ast.NodeTransformer):
    """Puts a class's name into private names, as the compiler does inside of the class."""

    def __init__(self, owner: str) -> None:
        self.rewriter = Rewriter((), owner)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self.rewriter._mangled(node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        node.attr = self.rewriter._mangled(node.attr)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self.rewriter._mangled(node.arg)
        return node


_codes: dict[int, tuple[types.CodeType, Any]] = {}  # by identity: equal code may come from two files
_own: dict[types.CodeType, bool] = {}  # code that `rewritten` has made, functions inside of it included


def rewritten(function: types.FunctionType) -> types.CodeType:
    """The code of a function's rewritten copy; raises Unwatchable, with the reason, where there can't be one."""
    code = function.__code__
    known = _codes.get(id(code))
    if known is None:
        if len(_codes) > _KEPT:
            _codes.clear()
            _own.clear()
        try:
            made: Any = _make(code, function.__globals__)
        except Unwatchable as found:
            made = (found.reason, found.line)  # a kept exception would keep the frames it went through
        known = _codes[id(code)] = (code, made)
    if type(known[1]) is tuple:
        raise Unwatchable(*known[1])
    return known[1]  # type: ignore[no-any-return]


def is_rewritten(code: types.CodeType) -> bool:
    """Whether code is a rewritten copy, or part of one."""
    return code in _own


def _make(code: types.CodeType, names: dict[str, Any]) -> types.CodeType:
    if code.co_flags & _ASYNCHRONOUS:
        raise Unwatchable("it is asynchronous", code.co_firstlineno)
    node, owner = _find(code, names)
    tree = copy.deepcopy(node)
    rewriter = Rewriter(code.co_freevars, owner)
    arguments = [*tree.args.posonlyargs, *tree.args.args]
    rewriter.first = arguments[0].arg if arguments else None
    if owner is not None:
        for a in ast.walk(tree.args):
            if isinstance(a, ast.arg):
                a.arg = rewriter._mangled(a.arg)
    tree = rewriter.rewrite(tree)
    made = _inner(tree, (*[n for n in code.co_freevars if n != HOOKS], HOOKS), code, [])
    if made is None:
        raise Unwatchable(UNKNOWN, code.co_firstlineno)
    made = _named(made, code)
    stack = [made]
    while stack:
        one = stack.pop()
        _own[one] = True
        stack += [c for c in one.co_consts if isinstance(c, types.CodeType)]
    return made


def _named(made: Any, like: Any) -> types.CodeType:
    """Code, with the names that errors show as in the function's own, those of functions inside of it included."""
    if not hasattr(made, "co_qualname"):
        return made  # type: ignore[no-any-return]
    before, after = made.co_qualname, like.co_qualname
    order, stack = [], [made]
    while stack:
        one = stack.pop()
        order.append(one)
        stack += [c for c in one.co_consts if isinstance(c, types.CodeType)]
    renamed: dict[int, Any] = {}
    for one in reversed(order):  # inner ones first
        consts = tuple([renamed.get(id(c), c) for c in one.co_consts])
        renamed[id(one)] = one.replace(co_consts=consts, co_qualname=one.co_qualname.replace(before, after, 1))
    return renamed[id(made)]  # type: ignore[no-any-return]
