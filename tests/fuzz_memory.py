"""Random programs whose handles share memory: parameters, `.data`, detached tensors, views of views, arrays, writes
through any of them, optimizers and modules between. Start reading at `generate`.

Not written, because fastgrad's answer is another one and the better one:

- Writes to expanded tensors. PyTorch refuses some and warns of the others, fastgrad refuses all; and the gradient of a
  sum that PyTorch's `autograd.grad` gives is an expanded number, where fastgrad's has memory for each element.
- Views that are made under `no_grad` of a tensor that requires a gradient, or before it requires one, or before it is
  detached in place. PyTorch says that they require one, too, but has no history for them, so that no gradient arrives
  anywhere; in fastgrad they require none.
- `contiguous()` and its like of what is computed from a transposed tensor: PyTorch keeps the operand's strides and copies
  then, in fastgrad all results are contiguous.
- Writes whose operand lies elsewhere in the memory that is written: PyTorch reads in part what it has just written.
- `.data =` of another shape for what requires a gradient: no gradient of a graph before would fit.
- `.data =` of views, which PyTorch still takes for relatives of what they have shown.
- `retain_grad` of views: when their memory is written through another handle under `no_grad`, PyTorch forgets it.
- `asarray` of an array of no dimension: PyTorch copies it, fastgrad shares its memory as with any other.
- Gradients that are their parameter's memory: PyTorch's AdamW decays both before it reads the gradient.
- Optimizers with one parameter twice: PyTorch warns that this will be an error, in fastgrad it is one.
"""

from __future__ import annotations

from typing import Any

if __package__:
    from .fuzz_writer import Line, Writer, programs
else:
    from fuzz_writer import Line, Writer, programs

SHAPES = ((4,), (4,), (2, 3), (2, 2), (3,), (2,), ())


class Memory(Writer):
    family = "memory"

    def write(self) -> None:
        self.dtype = self.rng.choice(["float64"] * 5 + ["float32"])
        for _ in range(self.rng.randint(1, 3)):
            self.make_tensor()
        anywhere = [
            (4, self.make_tensor),
            (4, self.make_parameter),
            (4, self.make_array),
            (8, self.make_detached),
            (12, self.make_view),
            (3, self.make_views),
            (4, self.make_copy),
            (2, self.fail),
            (4, self.make_result),
            (30, self.make_write),
            (6, self.assign_data),
            (4, self.write_array),
            (8, self.walk),
            (5, self.touch_gradient),
            (5, self.read),
            (3, self.make_module),
            (3, self.use_module),
            (3, self.make_optimizer),
            (5, self.take_step),
            (2, self.change_leaf),
            (1, self.make_state),
            (1, self.delete),
        ]
        self.actions = anywhere
        blocks = [(3.0, self.make_loop), (3.0, self.make_function)]
        self.act([*anywhere, *blocks], self.rng.choice([5, 10, 15, 25]))
        self.emit("show()")
        self.plain = True  # last, a write through each handle shows what shares memory
        for i, name in enumerate([name for name, _ in self.tensors()]):
            value = self.names[name]
            if value.is_floating_point():
                with_grad = " and grads" if value.is_leaf and value.grad is not None else ""
                self.emit(f"{name}.data.add_({i + 1} / 8)")
                if with_grad:
                    self.emit(f"{name}.grad.add_({i + 1} / 16)")
        for name in self.of_kind("n"):
            self.emit(f"{name} += 0.03125")
        self.emit("show()")

    # handles

    def leaf_values(self, shape: tuple[int, ...]) -> str:
        flat = [self.number() for _ in range(_size(shape))]
        if len(shape) == 2:
            rows = [flat[i * shape[1] : (i + 1) * shape[1]] for i in range(shape[0])]
            return f"[{', '.join('[' + ', '.join(row) + ']' for row in rows)}]"
        return f"[{', '.join(flat)}]" if shape else flat[0]

    def make_tensor(self) -> None:
        shape = self.rng.choice(SHAPES)
        dtype = f"dtype=T.{self.dtype}"
        text = self.one_of(
            f"T.tensor({self.leaf_values(shape)}, {dtype})",
            f"T.tensor({self.leaf_values(shape)}, {dtype})",
            f"T.tensor({self.leaf_values(shape)}, {dtype}, requires_grad=True)",
            f"T.zeros({shape}, {dtype})",
            f"T.ones({shape}, {dtype})",
            f"T.ones({shape}, {dtype}, requires_grad=True)",
            f"T.full({shape}, {self.number()}, {dtype})",
            f"T.arange(4, {dtype})",
        )
        self.emit(f"{self.new()} = {text}")

    def make_parameter(self) -> None:
        t = self.pick()
        if t is None:
            return
        shape = self.rng.choice(SHAPES)
        text = self.one_of(
            f"T.nn.Parameter({t})",
            f"T.nn.Parameter({t})",
            f"T.nn.Parameter({t}.detach())",
            f"T.nn.Parameter({t}, requires_grad=False)",
            f"T.nn.Parameter(T.tensor({self.leaf_values(shape)}, dtype=T.{self.dtype}))",
            f"{t}.detach().requires_grad_()",
            f"{t}.clone().detach().requires_grad_(True)",
        )
        self.emit(f"{self.new('p')} = {text}")

    def make_array(self) -> None:
        if self.plain:
            return
        arrays = self.of_kind("n")
        t = self.pick()
        choice = self.rng.randrange(6)
        if choice == 0 or t is None:
            shape = self.rng.choice(SHAPES[:-1])
            self.emit(f"{self.new('n')} = np.array({self.leaf_values(shape)}, '{self.dtype}')")
        elif choice in (1, 2) and arrays:
            n = self.rng.choice(arrays)
            index = self.one_of("", "", "[1:]", "[::2]", ".T")
            function = self.one_of("from_numpy", "from_numpy", "as_tensor", "asarray", "tensor")
            if self.names[n].ndim or function != "asarray":
                self.emit(f"{self.new()} = T.{function}({n}{index})")
        else:
            self.emit(f"{self.new('n')} = {t}{self.one_of('.detach()', '.data', '')}.numpy()")

    def make_detached(self) -> None:
        t = self.pick()
        if t is not None:
            self.emit(f"{self.new()} = {t}{self.one_of('.detach()', '.data', '.data', '.detach().detach()')}")

    def view_of(self, text: str, value: Any) -> str:
        """An expression for a view of one."""
        shape = tuple(value.shape)
        choices = [".unsqueeze(0)", f".view_as({text})", "[...]", ".squeeze()"]
        choices += [".detach()", ".data", ".view(-1)", "[None]", f".expand(2, *{text}.shape)"]
        if _whole(value).is_contiguous():
            choices += [".contiguous()", ".flatten()", ".reshape(-1)"]
        if len(shape) >= 1 and shape[0]:
            n = shape[0]
            i = self.rng.randrange(n)
            choices += [f"[{i}]", f"[{i}:]", f"[:{i + 1}]", "[::2]", "[1:]", f"[-{i + 1}]", "[:]", "[1::2]"]
            choices += [
                f".narrow(0, {i}, {n - i})",
                f".select(0, {i})",
                ".chunk(2)[0]",
                ".chunk(2)[-1]",
                ".unbind(0)[0]",
            ]
            choices += [".split(1)[-1]", ".split(2)[0]", f".unbind()[{i}]"]
        if len(shape) == 2 and all(shape):
            j = self.rng.randrange(shape[1])
            choices += [f"[:, {j}]", f"[:, {j}:]", ".t()", ".T", ".transpose(0, 1)", ".permute(1, 0)", ".mT"]
            choices += [".swapaxes(0, 1)", ".movedim(0, 1)", ".diagonal()", f"[0, {j}]", "[:, ::2]", ".view(-1)[1:]"]
            choices += [".t().reshape(-1)", f".select(1, {j})", f".narrow(1, 0, {j + 1})", ".unbind(1)[-1]"]
            choices += [f".view({shape[1]}, {shape[0]})"]
        if shape == (4,):
            choices += [".view(2, 2)", ".reshape(2, 2)", ".view(2, -1).t()", ".view(2, 2)[:, 1]"]
        return text + self.rng.choice(choices)

    def make_view(self) -> None:
        t = self.pick()
        if t is None:
            return
        text = self.view_of(t, self.names[t])
        if self.chance(0.3) and (value := self.value(text)) is not None:
            text = self.view_of(text, value)
        if self.chance(0.15):
            context = "T.enable_grad()" if self.names[t].requires_grad else "T.no_grad()"  # see above
            self.emit(f"with {context}:", Line(f"{self.new()} = {text}"))
        else:
            self.emit(f"{self.new()} = {text}")

    def make_views(self) -> None:
        t = self.pick(lambda v: v.ndim >= 1 and v.shape[0] > 1)
        if t is None:
            return
        data = self.one_of("", "", ".data")
        text = self.one_of(".chunk(2)", ".unbind(0)[:2]", ".split(1)[:2]", f".split([1, {len(self.names[t]) - 1}])")
        self.emit(f"{self.new()}, {self.new()} = {t}{data}{text}")

    def make_copy(self) -> None:
        t = self.pick()
        if t is None:
            return
        other = self.pick(lambda v: v.ndim >= 1)
        text = self.one_of(
            f"{t}.clone()", f"{t}.detach().clone()", f"{t}.data.clone()", f"copy.deepcopy({t})", f"copy.copy({t})",
            f"T.empty_like({t}).copy_({t})", f"{t}.to(T.float32)", f"{t}.to(T.{self.dtype})", f"{t} + 0",
            f"T.cat([{t}.reshape(-1), {other or t}.data.reshape(-1)])", f"T.stack([{t}, {t}])", f"{t}.double()",
            f"{t}.new_tensor([1.0, 2.0])", f"T.zeros_like({t})", f"{t}.type_as({other or t})",
            f"pickle.loads(pickle.dumps({t}.detach().contiguous()))",
        )  # fmt: skip
        self.emit(f"{self.new()} = {text}")

    def make_result(self) -> None:
        t = self.pick()
        if t is not None:
            self.emit(f"{self.new()} = {self.operand(self.names[t], t)}")

    def operand(self, like: Any, besides: str = "") -> str:
        """An expression of the shape of a tensor, or one that is broadcast to it."""
        shape = tuple(like.shape)
        same = [name for name, v in self.tensors(lambda v: tuple(v.shape) == shape and v.is_floating_point())]
        less = [name for name, v in self.tensors(lambda v: tuple(v.shape) == shape[1:] and v.is_floating_point())]
        found = self.rng.choice(same + less + [besides]) if same + less else besides
        if not found or self.chance(0.2):
            return f"T.full({shape}, {self.number()}, dtype=T.{self.dtype})"
        wrap = self.one_of(
            "{0}", "{0}", "{0}.detach()", "{0}.data", "{0} * {1}", "{0} + {1}", "{0}.tanh()", "{0} * {0}"
        )
        return wrap.format(found, self.number())

    # writes

    def target(self) -> tuple[str, Any] | None:
        """Something to write to: a handle, or a view of one made on the spot."""
        t = self.pick()
        if t is None:
            return None
        text = t + self.one_of("", "", "", ".data", ".data", ".detach()")
        for probability in (0.3, 0.3):
            if self.chance(probability) and (value := self.value(text)) is not None:
                text = self.view_of(text, value)
        value = self.value(text)
        if value is None or _overlaps(value):
            return None
        return text, value

    def index(self, value: Any) -> str:
        if value.numel() == 0 or value.ndim == 0:
            return "..."
        n = value.shape[0]
        i = self.rng.randrange(n)
        choices = [f"{i}", f"{i}", f"{i}:", "::2", "...", ":", f"-{i + 1}", f"[{i}]", f"[0, {n - 1}]"]
        choices += [f"T.tensor([{i}, {(i + 1) % n}])", "1:", f"np.array([{i}])"]
        if value.ndim == 2:
            j = self.rng.randrange(value.shape[1])
            choices += [f"{i}, {j}", f":, {j}", f"{i}, :{j + 1}", f"..., {j}", f"[0, {i}], [{j}, 0]", ":, ::2"]
        return self.rng.choice(choices)

    def write_text(self, text: str, value: Any) -> str:
        """A statement that writes to what the text names."""
        k, x = self.number(), self.operand(value, text)
        if (operand := self.value(x)) is not None and _meets(operand, value):
            x = f"{x}.clone()"
        kind = self.rng.random()
        if kind < 0.35:
            index = self.index(value)
            part = self.value(f"{text}.detach()[{index}]")
            choices = [f"{text}[{index}] = {k}", f"{text}[{index}] += {k}", f"{text}[{index}] *= {k}"]
            choices += [f"{text}[{index}] = {k}"] * 2
            if part is not None:
                right = self.operand(part)
                choices += [f"{text}[{index}] = {right}", f"{text}[{index}] -= {right}", f"{text}[{index}] += {right}"]
            choices += [f"{text}[{text} > 0.2137] = {k}", f"{text}[{text} > 0.2137] *= {k}"]
            return self.rng.choice(choices)
        choices = [
            f".add_({x})", f".add_({k})", f".sub_({x}, alpha={k})", f".mul_({x})", f".mul_({k})", f".copy_({x})",
            f".copy_({x})", f".fill_({k})", ".zero_()", ".clamp_(-1.0, 1.0)", ".neg_()", ".tanh_()", f".div_({k})",
            f".lerp_({x}, 0.25)", f".addcmul_({x}, {x}, value={k})", f".masked_fill_({text} > 0.2137, {k})",
            f".add_({x}, alpha={k})", ".abs_()", f".clamp_(min={k})", ".exp_()", ".sigmoid_()", ".relu_()",
        ]  # fmt: skip
        if value.ndim >= 1 and value.numel():
            i = self.rng.randrange(value.shape[0])
            choices += [f".index_fill_(0, T.tensor([{i}]), {k})", f".index_add_(0, T.tensor([{i}]), {text}[:1] * {k})"]
            choices += [f".index_copy_(0, T.tensor([{i}]), {text}[-1:].clone())"]
        if value.ndim == 1 and value.numel():
            choices += [f".scatter_(0, T.tensor([{i}]), {k})"]
        if kind < 0.9 or not programs.NAME.match(text):
            return text + self.rng.choice(choices)
        return f"{text} {self.one_of('+=', '-=', '*=')} {self.rng.choice([x, k])}"

    def make_write(self) -> None:
        found = self.target()
        if found is None:
            return
        statement = self.write_text(*found)
        if found[1].requires_grad and (found[1].is_leaf or self.chance(0.6)) and not self.chance(0.05):
            self.emit(
                f"{self.one_of('with T.no_grad():', 'with T.no_grad():', 'with T.inference_mode(False), T.no_grad():')}",
                Line(statement),
            )
        elif self.chance(0.2):
            self.emit("with T.no_grad():", Line(statement))
        elif self.chance(0.06) and found[1].ndim >= 1:
            self.emit(f"for h9 in {found[0]}:", Line(f"h9.{self.one_of('add_', 'mul_', 'fill_')}({self.number()})"))
        else:
            self.emit(statement)

    def fail(self) -> None:
        """A statement that raises half-way in an expression, and is caught."""
        t = self.pick()
        if t is None:
            return
        k = self.number()
        text = self.one_of(
            f"{t}.data[9] = {k}", f"{t}.data.add_(T.ones(7, 5))", f"{t}.data.copy_(T.ones(5, 7))", f"{t}.data.view(11)",
            f"({t} * {k}).backward(T.ones(7))", f"{t}.grad = T.ones(7, 5)", f"{t}.data[:, :, :, 1] *= {k}",
            f"log.append(({t} @ T.ones(7, 7)).sum())", f"{t}.data.mul_({k})[9]", f"{t}.data.index_fill_(0, T.tensor([9]), {k})",
            f"{t}.data = 3.0", f"{t}.mul_({k}).no_such_name",
        )  # fmt: skip
        self.emit(f"try: {text}\nexcept Exception: log.append(0)")

    def assign_data(self) -> None:
        a = self.pick(lambda v: v._base is None)
        if a is None:
            return
        shape = self.names[a].shape
        b = self.pick(lambda v: v.shape == shape and v is not self.names[a])
        if b is None or self.chance(0.3):
            big = self.pick(lambda v: v.numel() >= self.names[a].numel() and v.ndim == 1)
            n = self.names[a].numel()
            if big is not None and self.chance(0.5):
                start = self.rng.randint(0, self.names[big].numel() - n)
                self.emit(
                    f"{a}.data = {big}{self.one_of('', '.data', '.detach()')}[{start}:{start + n}].view({tuple(shape)})"
                )
            else:
                other = self.operand(self.names[a], a)
                made = self.value(other)
                if not self.names[a].requires_grad or (made is not None and made.shape == shape):
                    self.emit(f"{a}.data = {other}")
            return
        text = self.one_of(
            f"{a}.data = {b}.data", f"{a}.data = {b}", f"{a}.data = {b}.detach()", f"{a}.data = {b}.data.clone()",
            f"{a}.data, {b}.data = {b}.data, {a}.data", f"{a}.data = {a}.data - 0.5 * {b}.data",
            f"{a}.data = {a}.data", f"{a}.data = {b}.data.view_as({a})", f"{a}.data += {b}.data",
            f"{a}.data -= 0.5 * {b}",
        )  # fmt: skip
        self.emit(text)

    def write_array(self) -> None:
        arrays = self.of_kind("n")
        if not arrays or self.plain:
            return
        n = self.rng.choice(arrays)
        k = self.number()
        text = self.one_of(f"{n}[:] = {k}", f"{n}[0] = {k}", f"{n} += {k}", f"{n}[...] *= {k}", f"np.add({n}, {k}, out={n})",
                           f"{n}[-1:] = {k}", f"{n}[::2] += {k}", f"{n}.fill({k})")  # fmt: skip
        self.emit(text)

    # uses

    def walk(self) -> None:
        """A backward pass, at once or with a loss that stays."""
        leaf = self.pick(lambda v: v.requires_grad)
        if leaf is None:
            return
        other = self.operand(self.names[leaf], leaf)
        loss = self.one_of(
            f"({leaf} * {other}).sum()", f"({leaf} * {leaf}).sum()", f"({leaf} * {leaf} * {other}).mean()",
            f"({leaf} - {other}).pow(2).sum()", f"{leaf}.sum()", f"({leaf}.tanh() * {other}).sum()", f"{leaf}.sin().mean()",
        )  # fmt: skip
        waiting = [name for name in self.of_kind("l") if self.names[name].requires_grad]
        choice = self.rng.random()
        if waiting and choice < 0.4:
            self.emit(f"{self.rng.choice(waiting)}.backward({self.one_of('', '', 'retain_graph=True')})")
        elif choice < 0.6:
            self.emit(f"{self.new('l')} = {loss}")
        elif choice < 0.7 and self.names[leaf].is_leaf:
            name = self.new("g")
            self.emit(f"{name}, = T.autograd.grad({loss}, [{leaf}]); {name} = {name}.contiguous()")
        else:
            self.emit(f"{loss}.backward()")

    def touch_gradient(self) -> None:
        p = self.pick(lambda v: v.is_leaf and v.grad is not None)
        if p is None:
            return
        k = self.number()
        text = self.one_of(
            f"{p}.grad = None", f"{p}.grad.zero_()", f"{p}.grad.mul_({k})", f"{p}.grad = {p}.grad * {k}",
            f"{self.new('g')} = {p}.grad", f"{p}.grad.data.add_({k})", f"{p}.grad.data.zero_()", f"{p}.grad[0] = {k}",
            f"{p}.grad = {p}.data.clone()", f"{p}.grad = {p}.detach() * {k}", f"{p}.grad.copy_({p}.data)", f"{p}.grad.detach_()",
            f"{p}.grad.add_({p}.data, alpha={k})", f"{self.new('g')} = {p}.grad.view(-1)", f"{p}.grad += {k}",
            f"{self.new('g')} = {p}.grad.clone()", f"{p}.grad.data = {p}.data * {k}", f"{p}.data.sub_({p}.grad, alpha=0.1)",
            f"{p}.data = {p}.data - 0.1 * {p}.grad", f"{p}.data[:] = {p}.data - 0.1 * {p}.grad", f"{p}.data -= 0.1 * {p}.grad",
            f"try: {p}.grad, h9.grad = h9.grad, {p}.grad\nexcept Exception: pass",
            f"{p}.detach().add_({p}.grad, alpha=-0.1)", f"{p}.data.view(-1).sub_(0.1 * {p}.grad.view(-1))",
        )  # fmt: skip
        self.emit(text)

    def read(self) -> None:
        t = self.pick()
        if t is None or self.plain:
            return
        text = self.one_of(
            f"log.append({t}.sum().item())", f"log.append({t}.tolist())", f"log.append(float({t}.detach().sum()))",
            f"log.append({t}.detach().sum())", f"str({t})", f"log.append(bool(({t} > 0.1).any()))",
            f"log.append(({t} * 2).detach())", f"log.append([float(h) for h in {t}.reshape(-1)])",
        )  # fmt: skip
        self.emit(text)

    # modules and optimizers

    def make_module(self) -> None:
        modules = self.of_kind("m")
        if self.plain or len(modules) >= 3:
            return
        m = self.new("m")
        body = [f"{m} = T.nn.Linear(2, {self.rng.choice([2, 2, 3])}, bias={self.chance(0.6)}).to(T.{self.dtype})"]
        body += [
            "with T.no_grad():",
            f"    for h9 in {m}.parameters(): h9.copy_(T.arange(h9.numel()).view(h9.shape) / 4)",
        ]
        if modules and self.chance(0.3):
            body = [f"{m} = copy.deepcopy({self.rng.choice(modules)})"]
        self.emit("\n".join(body))
        if modules and self.chance(0.4):
            tie = self.one_of(
                "{0}.weight = {1}.weight", "{0}.weight.data = {1}.weight.data", "{0}.load_state_dict({1}.state_dict())"
            )
            self.emit(tie.format(m, self.rng.choice(modules)))
        if self.chance(0.5):
            self.emit(f"{self.new('p')} = {m}.weight")

    def use_module(self) -> None:
        modules = self.of_kind("m")
        if not modules:
            return
        m, other, k = self.rng.choice(modules), self.rng.choice(modules), self.number()
        x = f"T.tensor([[{self.number()}, {self.number()}]], dtype=T.{self.dtype})"
        w = self.pick(lambda v: v.ndim == 2) or f"{m}.weight"
        choices = [
            f"{self.new()} = {m}({x})", f"{m}({x}).sum().backward()", f"{m}({x}).pow(2).sum().backward()",
            f"{m}.zero_grad()", f"{m}.zero_grad(set_to_none=False)", f"T.nn.init.constant_({m}.weight, {k})",
            f"{m}.load_state_dict({other}.state_dict())", f"{self.new()} = {m}.weight.data", f"{m}.weight.data.mul_({k})",
            f"{m}.weight.data[0, 1] = {k}", f"{self.new()} = {m}.weight.t()",
            f"T.nn.utils.vector_to_parameters(T.nn.utils.parameters_to_vector({m}.parameters()) * {k}, {m}.parameters())",
            f"for h9 in {m}.parameters(): h9.data.add_({k})", f"{m}.weight.data = {w}.data",
            f"{self.new()} = T.nn.utils.parameters_to_vector({m}.parameters())", f"{m}.weight = T.nn.Parameter({w})",
            f"{self.new()} = {m}.state_dict()['weight']",
            f"for h8, h9 in zip({m}.parameters(), {other}.parameters()): h8.data.lerp_(h9.data, 0.5)",
            f"with T.no_grad(): {m}.weight[0, 1] = {k}", f"with T.no_grad(): {m}.weight[0].fill_({k})",
        ]  # fmt: skip
        if self.has_no_views(self.value(f"{m}.weight")):
            choices.append(f"{m}.weight.requires_grad_({self.chance(0.7)})")
        self.emit(self.rng.choice(choices))

    def make_state(self) -> None:
        modules = self.of_kind("m")
        if modules and not self.plain:
            m = self.rng.choice(modules)
            self.emit(
                f"{self.new('s')} = {self.one_of('{0}.state_dict()', 'copy.deepcopy({0}.state_dict())').format(m)}"
            )
        if self.of_kind("s") and modules and self.chance(0.5):
            self.emit(f"{self.rng.choice(modules)}.load_state_dict({self.rng.choice(self.of_kind('s'))})")

    def make_optimizer(self) -> None:
        if self.plain or len(self.of_kind("o")) >= 2:
            return
        found = self.tensors(lambda v: v.is_leaf and v.requires_grad and v.is_floating_point())
        leaves = list({id(v): name for name, v in found}.values())
        modules = self.of_kind("m")
        if modules and self.chance(0.5):
            params = f"{self.rng.choice(modules)}.parameters()"
        elif leaves:
            params = f"[{', '.join(self.rng.sample(leaves, min(len(leaves), self.rng.randint(1, 2))))}]"
        else:
            return
        options = self.one_of(
            "SGD({0}, lr=0.5)", "SGD({0}, lr=0.25, momentum=0.5)", "SGD({0}, lr=0.25, weight_decay=0.5)",
            "SGD({0}, lr=0.125, momentum=0.5, nesterov=True)", "Adam({0}, lr=0.125)", "AdamW({0}, lr=0.125)",
            "SGD({0}, lr=0.25, momentum=0.5, dampening=0.25, maximize=True)", "Adam({0}, lr=0.1, amsgrad=True)",
        )  # fmt: skip
        self.emit(f"{self.new('o')} = T.optim.{options.format(params)}")

    def take_step(self) -> None:
        optimizers = self.of_kind("o")
        if not optimizers:
            return
        o = self.rng.choice(optimizers)
        choices = [f"{o}.step()"] * 5 + [f"{o}.zero_grad()", f"{o}.zero_grad(set_to_none=False)"]
        state = self.one_of(
            "{0}.state_dict()", "copy.deepcopy({0}.state_dict())", "pickle.loads(pickle.dumps({0}.state_dict()))"
        )
        choices += [f"{self.new('z')} = {state.format(o)}"] * (not self.plain)
        choices += [f"{o}.load_state_dict({z})" for z in self.of_kind("z")]
        choices += [
            f"{o}.param_groups[0]['lr'] *= 0.5",
            f"for h9 in {o}.param_groups[0]['params']: h9.grad = h9.data * 0.5",
        ]
        self.emit(self.rng.choice(choices))

    def change_leaf(self) -> None:
        t = self.pick()
        if t is not None:
            choices = [".requires_grad_(False)"]
            if self.has_no_views(self.names[t]):  # see above
                choices += [".requires_grad_()", ".detach_()"]
            if self.names[t]._base is None:
                choices.append(".retain_grad()")
            self.emit(t + self.rng.choice(choices))

    def has_no_views(self, t: Any) -> bool:
        return not any(v._base is t for _, v in self.tensors())

    def delete(self) -> None:
        found = self.tensors()
        if len(found) > 3 and not self.plain:
            self.emit(f"del {self.rng.choice(found)[0]}")

    # blocks

    def make_loop(self) -> None:
        with self.block() as body:
            self.act(self.actions, self.rng.randint(1, 4))
        if body:
            flat = [Line(line.source, line.body) if self.chance(0.5) else line for line in body]
            self.emit(Line(f"for k in range({self.rng.randint(2, 4)}):", tuple(flat)))

    def make_function(self) -> None:
        """A function that may be compiled, called some times with other lines between."""
        with self.block(plain=True) as body:
            self.act(self.actions, self.rng.randint(1, 5))
        if not body:
            return
        text = "".join(line.text() for line in body)
        bound, read = programs.names_of(text)
        parameters = sorted(name for name in read if name in bound or self.chance(0.4))
        if any(name[0] not in "vpgl" for name in parameters):
            parameters = [name for name in parameters if name[0] in "vpgl"]
        results = sorted(bound - read - {"h8", "h9"})
        name = self.new("f")
        returned = Line(f"return {', '.join(results) or 'None'}{',' if len(results) == 1 else ''}")
        head = f"@compiled\ndef {name}({', '.join(parameters)}):"
        if not self.emit(Line(head, (*body, returned))):
            return
        call = f"{name}({', '.join(parameters)})"
        names = [self.new() for _ in results]
        targets = "".join(f"{n}, " for n in names)
        if self.chance(0.6):
            self.emit(
                f"for k in range({self.rng.randint(2, 4)}):",
                Line(f"{targets}{'= ' if names else ''}{call}".replace(", =", ", =")),
            )
        else:
            for _ in range(self.rng.randint(2, 4)):
                self.emit(f"{targets}{'= ' if names else ''}{call}")
                self.act(self.actions, self.rng.randint(0, 2))


def _meets(operand: Any, target: Any) -> bool:
    """Whether an operand lies in the target's memory, elsewhere than the target itself."""
    same = operand.untyped_storage().data_ptr() == target.untyped_storage().data_ptr()
    place = lambda t: (tuple(t.shape), t.stride(), t.storage_offset())  # noqa: E731
    return same and place(operand) != place(target)


def _whole(value: Any) -> Any:
    """What a tensor is a view of, unless it has got other data since; or itself."""
    base = value._base
    same = base is not None and base.untyped_storage().data_ptr() == value.untyped_storage().data_ptr()
    return base if same else value


def _overlaps(value: Any) -> bool:
    """Whether elements share memory, as in what `expand` gives, and in PyTorch also the gradient of a sum."""
    return any(step == 0 and n > 1 for step, n in zip(value.stride(), value.shape, strict=True))


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def generate(seed: int, torch: Any, threads: bool) -> programs.Program:
    writer = Memory(seed, torch, threads)
    writer.write()
    return writer.program()
