"""A function's syntax tree, rewritten so that every read of state goes through a recorder.

`x.y` becomes `hooks.attribute(x, "y")`, `f(a)` becomes `hooks.call(f, a)`, and so on for globals, closure cells, items, loops,
truth, operators, text and stores; names of the function's own stay as they are. Control flow is Python's. The text that stands in
for a load passes the value through, so that errors are those of the original. Nothing here depends on a version's bytecode.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any, cast

HOOKS = "__fastgrad_hooks"
_FRAMES = {"locals", "globals", "vars", "dir", "eval", "exec", "breakpoint", "__import__"}
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_FUNCTIONS = (ast.FunctionDef, ast.Lambda)
_OPERATORS = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "truediv", ast.FloorDiv: "floordiv", ast.Mod: "mod", ast.Pow: "pow",
    ast.MatMult: "matmul", ast.LShift: "lshift", ast.RShift: "rshift", ast.BitAnd: "and_", ast.BitOr: "or_", ast.BitXor: "xor",
    ast.USub: "neg", ast.UAdd: "pos", ast.Invert: "invert",
    ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne",
}  # fmt: skip


class Unwatchable(Exception):
    """A function that can't be rewritten: the reason, and the line."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


class _Scope:
    """The names that one function binds, and those that it says are global."""

    def __init__(self, bound: set[str], outside: set[str]) -> None:
        self.bound = bound
        self.outside = outside


def bound_names(node: ast.AST) -> _Scope:
    """The scope of a function: its arguments and whatever it binds, without what functions inside of it bind."""
    bound: set[str] = set()
    outside: set[str] = set()
    elsewhere: set[str] = set()
    arguments = cast(ast.FunctionDef, node).args
    for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if a is not None:
            bound.add(a.arg)
    stack: list[tuple[ast.AST, bool]] = [
        (x, False) for x in ([node.body] if isinstance(node, ast.Lambda) else cast(ast.FunctionDef, node).body)
    ]
    while stack:
        x, inside = stack.pop()
        if isinstance(x, ast.Name) and isinstance(x.ctx, (ast.Store, ast.Del)):
            if not inside:
                bound.add(x.id)
        elif isinstance(x, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(x.name)
            continue
        elif isinstance(x, ast.Lambda):
            continue
        elif isinstance(x, ast.NamedExpr):
            bound.add(cast(ast.Name, x.target).id)
        elif isinstance(x, (ast.Import, ast.ImportFrom)):
            bound |= {(a.asname or a.name).split(".", 1)[0] for a in x.names}
        elif isinstance(x, ast.ExceptHandler) and x.name:
            bound.add(x.name)
        elif isinstance(x, ast.Global):
            outside |= set(x.names)
        elif isinstance(x, ast.Nonlocal):
            elsewhere |= set(x.names)
        elif isinstance(x, (ast.MatchAs, ast.MatchStar)) and x.name:
            bound.add(x.name)
        elif isinstance(x, ast.MatchMapping) and x.rest:
            bound.add(x.rest)
        if isinstance(x, _COMPREHENSIONS):
            inside = True
        stack += [(child, inside) for child in ast.iter_child_nodes(x)]
    return _Scope(bound - outside - elsewhere, outside)


def _names(target: ast.AST) -> set[str]:
    return {x.id for x in ast.walk(target) if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)}


def _shape(target: ast.AST) -> Any:
    """How an unpacked target is nested: None for one value, a tuple for several."""
    if isinstance(target, (ast.Tuple, ast.List)):
        return tuple([_shape(x) for x in target.elts])
    return "*" if isinstance(target, ast.Starred) else None


class Rewriter(ast.NodeTransformer):
    """Rewrites the body of one function."""

    def __init__(self, free: tuple[str, ...], owner: str | None) -> None:
        self.free = set(free)
        self.owner = owner  # the class whose name is put into private names
        self.scopes: list[_Scope] = []
        self.written: list[str] = []  # names outside of the function that the present statement binds
        self.count = 0

    def rewrite(self, node: ast.FunctionDef | ast.Lambda) -> ast.FunctionDef | ast.Lambda:
        """The function with its reads redirected; decorators, defaults and annotations are left as they are."""
        return self._function(node)

    # ---- making nodes

    def _hook(self, name: str, *arguments: ast.expr | str | Any | None) -> ast.Call:
        values = [a if isinstance(a, ast.expr) else self._literal(a) for a in arguments]
        function = ast.Attribute(ast.Name(HOOKS, ast.Load()), name, ast.Load())
        return ast.Call(function, values, [])

    def _literal(self, value: Any) -> ast.expr:
        if isinstance(value, tuple):
            return ast.Tuple([self._literal(x) for x in value], ast.Load())
        return ast.Constant(value)

    def _temporary(self) -> str:
        self.count += 1
        return f"{HOOKS}_{self.count}"

    def _mangled(self, name: str) -> str:
        if self.owner is None or not name.startswith("__") or name.endswith("__"):
            return name
        return f"_{self.owner.lstrip('_')}{name}" if self.owner.strip("_") else name

    # ---- scopes

    def _kind(self, name: str) -> str:
        for scope in reversed(self.scopes):
            if name in scope.outside:
                return "global"
            if name in scope.bound:
                return "own"
        return "cell" if name in self.free else "global"

    def _function(self, node: Any) -> Any:
        self.scopes.append(bound_names(node))
        node.body = self.visit(node.body) if isinstance(node, ast.Lambda) else self._statements(node.body)
        if node.args.kwarg is not None and not isinstance(node, ast.Lambda):  # a dict that the call makes
            name = self._mangled(node.args.kwarg.arg)
            made = ast.Assign([ast.Name(name, ast.Store())], self._hook("fresh", ast.Name(name, ast.Load())))
            node.body.insert(0, ast.copy_location(made, node.body[0]))
        self.scopes.pop()
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self._defaults(node.args)
        return self._function(node)  # type: ignore[no-any-return]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._defaults(node.args)
        node.decorator_list = [self.visit(d) for d in node.decorator_list]
        node.returns = None
        arguments = node.args
        for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
            if a is not None:
                a.annotation = None
        return self._function(node)  # type: ignore[no-any-return]

    def _defaults(self, arguments: ast.arguments) -> None:
        arguments.defaults = [self.visit(d) for d in arguments.defaults]
        arguments.kw_defaults = [None if d is None else self.visit(d) for d in arguments.kw_defaults]

    def _refuse(self, node: Any) -> Any:
        what = {
            "AsyncFunctionDef": "async def",
            "ClassDef": "class",
            "AsyncFor": "async for",
            "AsyncWith": "async with",
        }
        name = type(node).__name__
        raise Unwatchable(f"`{what.get(name, name.lower())}` inside of it", node.lineno)

    visit_AsyncFunctionDef = visit_ClassDef = visit_AsyncFor = visit_AsyncWith = visit_Await = _refuse

    # ---- names, attributes, items, calls

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._mangled(node.id)
        kind = self._kind(node.id)
        if kind == "own":
            return node
        if not isinstance(node.ctx, ast.Load):
            self.written.append(node.id)
            return node
        if kind == "global" and node.id in _FRAMES:
            raise Unwatchable(f"`{node.id}`", node.lineno)
        return ast.copy_location(self._hook("name" if kind == "global" else "cell", node.id, node), node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        name = self._mangled(node.attr)
        return ast.copy_location(self._hook("attribute", self.visit(node.value), name), node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        return ast.copy_location(self._hook("item", self.visit(node.value), self._key(node.slice)), node)

    def _key(self, key: ast.expr) -> ast.expr:
        if isinstance(key, ast.Slice):
            parts = [None if x is None else self.visit(x) for x in (key.lower, key.upper, key.step)]
            return ast.copy_location(self._hook("slice", *parts), key)
        if isinstance(key, ast.Tuple):
            elements = [self.visit(x) if isinstance(x, ast.Starred) else self._key(x) for x in key.elts]
            return ast.copy_location(ast.Tuple(elements, ast.Load()), key)
        return self.visit(key)  # type: ignore[no-any-return]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "super" and self._kind("super") == "global":
            return self._super(node)
        function = self.visit(node.func)
        arguments = [self.visit(a) for a in node.args]
        keywords = [
            ast.keyword(k.arg, self.visit(k.value) if k.arg else self._hook("mapping", self.visit(k.value)))
            for k in node.keywords
        ]
        call = self._hook("call", function)
        call.args += arguments
        call.keywords = keywords
        return ast.copy_location(call, node)

    def _super(self, node: ast.Call) -> ast.AST:
        if node.args:
            node.args = [self.visit(a) for a in node.args]
            return node
        if len(self.scopes) != 1 or self.first is None:
            raise Unwatchable("`super()` in a function inside of it", node.lineno)
        node.args = [ast.Name("__class__", ast.Load()), ast.Name(self.first, ast.Load())]
        return node

    first: str | None = None  # the name of the function's first argument

    def visit_Starred(self, node: ast.Starred) -> ast.AST:
        if isinstance(node.ctx, ast.Load):
            node.value = self._hook("each", self.visit(node.value), None)
        else:
            node.value = self.visit(node.value)
        return node

    # ---- operators, truth, text

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        hook = self._hook("binary", _OPERATORS[type(node.op)], self.visit(node.left), self.visit(node.right))
        return ast.copy_location(hook, node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.Not):
            node.operand = self._truth(node.operand)
            return node
        return ast.copy_location(self._hook("unary", _OPERATORS[type(node.op)], self.visit(node.operand)), node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        if len(node.ops) == 1:
            op, left, right = node.ops[0], self.visit(node.left), self.visit(node.comparators[0])
            if type(op) in _OPERATORS:
                return ast.copy_location(self._hook("binary", _OPERATORS[type(op)], left, right), node)
            if isinstance(op, (ast.In, ast.NotIn)):
                hook = ast.copy_location(self._hook("contains", left, right), node)
                return hook if isinstance(op, ast.In) else ast.copy_location(ast.UnaryOp(ast.Not(), hook), node)
            node.left, node.comparators = left, [right]
            return node
        node.left = self._hook("compared", self.visit(node.left))
        node.comparators = [self._hook("compared", self.visit(x)) for x in node.comparators]
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        *first, last = [self.visit(x) for x in node.values]
        node.values = [*[self._hook("condition", x) for x in first], last]
        return node

    def _truth(self, test: ast.expr) -> ast.expr:
        return ast.copy_location(self._hook("truth", self.visit(test)), test)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        node.test, node.body, node.orelse = self._truth(node.test), self.visit(node.body), self.visit(node.orelse)
        return node

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        node.value = self._hook("text", self.visit(node.value))
        if node.format_spec is not None:
            node.format_spec = self.visit(node.format_spec)
        return node

    # ---- what is made inside

    def _made(self, node: Any) -> ast.AST:
        return ast.copy_location(self._hook("fresh", node), node)

    def visit_List(self, node: ast.List) -> ast.AST:
        node.elts = [self.visit(x) for x in node.elts]
        return self._made(node) if isinstance(node.ctx, ast.Load) else node

    def visit_Set(self, node: ast.Set) -> ast.AST:
        node.elts = [self.visit(x) for x in node.elts]
        return self._made(node)

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        node.values = [
            self.visit(v) if k is not None else self._hook("mapping", self.visit(v))
            for k, v in zip(node.keys, node.values, strict=True)
        ]
        node.keys = [None if k is None else self._hook("operand", self.visit(k)) for k in node.keys]
        return self._made(node)

    def _comprehension(self, node: Any) -> ast.AST:
        first = node.generators[0]
        first.iter = self._each(first)  # evaluated outside
        self.scopes.append(_Scope(set().union(*[_names(g.target) for g in node.generators]), set()))
        for k, g in enumerate(node.generators):
            if k:
                g.iter = self._each(g)
            g.target = self.visit(g.target)
            g.ifs = [self._truth(x) for x in g.ifs]
            if g.is_async:
                raise Unwatchable("`async for` inside of it", node.lineno)
        if isinstance(node, ast.DictComp):
            node.key, node.value = self._hook("operand", self.visit(node.key)), self.visit(node.value)
        else:
            node.elt = self.visit(node.elt)
        self.scopes.pop()
        return self._made(node)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _each(self, loop: Any) -> ast.expr:
        return ast.copy_location(self._hook("each", self.visit(loop.iter), _shape(loop.target)), loop.iter)

    def visit_YieldFrom(self, node: ast.YieldFrom) -> ast.AST:
        node.value = self._hook("each", self.visit(node.value), None)
        return node

    # ---- statements

    def _statements(self, body: list[ast.stmt]) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        for statement in body:
            outer, self.written = self.written, []
            found = self.visit(statement)
            names, self.written = self.written, outer
            made += [self._done(self._hook("wrote", name), statement) for name in names]
            made += found if isinstance(found, list) else [found]
        return made

    def _done(self, value: ast.expr, like: ast.AST) -> ast.stmt:
        return ast.copy_location(ast.Expr(value), like)  # type: ignore[type-var]

    def _block(self, node: Any, *fields: str) -> None:
        for field in fields:
            setattr(node, field, self._statements(getattr(node, field)))

    def _plain(self, target: ast.expr, after: list[ast.stmt]) -> ast.expr:
        """A target whose attributes and items are stored to by the statements put in `after`."""
        if isinstance(target, (ast.Tuple, ast.List)):
            target.elts = [self._plain(x, after) for x in target.elts]
            return target
        if isinstance(target, ast.Starred):
            target.value = self._plain(target.value, after)
            return target
        if isinstance(target, ast.Name):
            return self.visit(target)  # type: ignore[no-any-return]
        name = self._temporary()
        after.append(self._done(self._store(ast.Name(name, ast.Load()), target), target))
        return ast.copy_location(ast.Name(name, ast.Store()), target)

    def _store(self, value: ast.expr, target: Any) -> ast.expr:
        if isinstance(target, ast.Attribute):
            return self._hook("set_attribute", value, self.visit(target.value), self._mangled(target.attr))
        return self._hook("set_item", value, self.visit(target.value), self._key(target.slice))

    def visit_Assign(self, node: ast.Assign) -> Any:
        value = self.visit(node.value)
        if len(node.targets) == 1:
            return self._assign(node.targets[0], value, node)
        name = self._temporary()
        made = [ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], value), node)]
        for target in node.targets:
            made += self._assign(target, ast.Name(name, ast.Load()), node)
        return made

    def _assign(self, target: ast.expr, value: ast.expr, like: ast.stmt) -> list[Any]:
        if isinstance(target, (ast.Attribute, ast.Subscript)):
            return [self._done(self._store(value, target), like)]
        if isinstance(target, (ast.Tuple, ast.List)):
            value = self._hook("unpack", value, _shape(target))
        after: list[ast.stmt] = []
        return [ast.copy_location(ast.Assign([self._plain(target, after)], value), like), *after]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return self._assign(node.target, self.visit(node.value), node)

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        name, target = "i" + _OPERATORS[type(node.op)].rstrip("_"), node.target
        if isinstance(target, ast.Name):
            before = self.visit(ast.copy_location(ast.Name(target.id, ast.Load()), target))
            value = self._hook("inplace", name, before, self.visit(node.value))
            return ast.copy_location(ast.Assign([self.visit(target)], value), node)
        owner = self._temporary()
        made: list[Any] = [ast.Assign([ast.Name(owner, ast.Store())], self.visit(target.value))]
        if isinstance(target, ast.Attribute):
            key: Any = self._mangled(target.attr)
            load, store = "attribute", "set_attribute"
        else:
            place = self._temporary()
            made.append(ast.Assign([ast.Name(place, ast.Store())], self._key(target.slice)))
            key, load, store = ast.Name(place, ast.Load()), "item", "set_item"
        of = ast.Name(owner, ast.Load())
        value = self._hook("inplace", name, self._hook(load, of, key), self.visit(node.value))
        made.append(ast.Expr(self._hook(store, value, of, key)))
        return [ast.copy_location(x, node) for x in made]

    def visit_Delete(self, node: ast.Delete) -> Any:
        made: list[Any] = []
        for target in node.targets:
            if isinstance(target, ast.Attribute):
                made.append(
                    self._done(self._hook("del_attribute", self.visit(target.value), self._mangled(target.attr)), node)
                )
            elif isinstance(target, ast.Subscript):
                made.append(self._done(self._hook("del_item", self.visit(target.value), self._key(target.slice)), node))
            else:
                made.append(ast.copy_location(ast.Delete([self.visit(target)]), node))
        return made

    def visit_If(self, node: ast.If) -> ast.AST:
        node.test = self._truth(node.test)
        self._block(node, "body", "orelse")
        return node

    def visit_While(self, node: ast.While) -> ast.AST:
        return self.visit_If(node)  # type: ignore[arg-type]

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.test = self._truth(node.test)
        node.msg = None if node.msg is None else self.visit(node.msg)
        return node

    def visit_For(self, node: ast.For) -> ast.AST:
        node.iter = self._each(node)
        after: list[ast.stmt] = []
        node.target = self._plain(node.target, after)
        self._block(node, "body", "orelse")
        node.body = after + node.body
        return node

    def visit_With(self, node: ast.With) -> ast.AST:
        after: list[ast.stmt] = []
        for item in node.items:
            item.context_expr = self._hook("manager", self.visit(item.context_expr))
            if item.optional_vars is not None:
                item.optional_vars = self._plain(item.optional_vars, after)
        self._block(node, "body")
        node.body = after + node.body
        return node

    def _try(self, node: Any) -> ast.AST:
        self._block(node, "body", "orelse", "finalbody")
        if node.handlers:
            node.body.insert(0, ast.Expr(self._hook("catches")))
        for handler in node.handlers:
            handler.type = None if handler.type is None else self.visit(handler.type)
            self._block(handler, "body")
        return cast(ast.AST, node)

    visit_Try = visit_TryStar = _try

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        made: list[Any] = [node]
        for a in node.names:
            name = a.asname or a.name
            value = self._hook("imported", node.module or "", node.level, a.name, ast.Name(name, ast.Load()))
            made.append(ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], value), node))
        return made

    def visit_Match(self, node: ast.Match) -> ast.AST:
        simple = all(
            [isinstance(x, (ast.MatchValue, ast.MatchSingleton, ast.MatchOr, ast.MatchAs)) for x in _patterns(node)]
        )
        if not simple:
            raise Unwatchable("`match` that takes objects apart", node.lineno)
        node.subject = self._hook("text", self.visit(node.subject))
        for case in node.cases:
            case.guard = None if case.guard is None else self._truth(case.guard)
            self._block(case, "body")
        return node


def _patterns(node: ast.Match) -> Iterator[ast.AST]:
    for case in node.cases:
        yield from [x for x in ast.walk(case.pattern) if isinstance(x, ast.pattern)]
