"""Random training scripts: models, losses, ways to zero, to walk back, to change gradients, to step, to look, and what
happens between steps. Start reading at `generate`.
"""

from __future__ import annotations

from typing import Any

if __package__:
    from .fuzz_writer import Line, Writer, programs
else:
    from fuzz_writer import Line, Writer, programs

NET = """\
class Net1(T.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = T.nn.Linear(2, 3)
        self.scale = T.nn.Parameter(T.ones(3))
        self.register_buffer("seen", T.zeros(()))
        self.register_buffer("average", T.zeros(2))
        self.act = T.nn.Tanh()
        self.head = T.nn.Linear(3, 1, bias=False)
    def forward(self, x):
        if self.training:
            with T.no_grad():
                self.seen += 1
                self.average.mul_(0.5).add_(x.mean(0), alpha=0.5)
        h = self.act(self.first(x - self.average)) * self.scale
        return self.head(h)
"""
SCALE = """\
class Cube1(T.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        ctx.save_for_backward(a)
        return a * a * a
    @staticmethod
    def backward(ctx, g):
        (a,) = ctx.saved_tensors
        return g * 3 * a * a
"""
STEPS_IN_HOOKS = (  # an update as soon as the gradient is there, which the optimizer then finds forgotten
    "lambda p: [p.data.sub_(p.grad, alpha=0.05), setattr(p, 'grad', None)]",
    "lambda p: [p.data.copy_(p.data - 0.05 * p.grad), p.grad.zero_()]",
    "T.no_grad()(lambda p: [p.sub_(0.05 * p.grad), setattr(p, 'grad', None)])",
    "T.no_grad()(lambda p: [p.add_(p.grad.sign(), alpha=-0.01), p.grad.mul_(0.5)])",
)


class Training(Writer):
    family = "training"

    def write(self) -> None:
        self.dtype = self.rng.choice(["float64"] * 5 + ["float32"])
        rows = self.rng.choice([4, 6])
        for name, width in (("x1", 2), ("y1", 1)):
            data = f"np.random.default_rng({self.rng.randrange(100)}).uniform(-1, 1, ({rows}, {width}))"
            form = self.one_of("T.tensor({0}, dtype=T.{1})", "T.from_numpy({0}).to(T.{1})").format(data, self.dtype)
            self.emit(f"{name} = {form}")
        self.rows = rows
        self.make_model()
        self.kind = self.rng.random()
        if self.chance(0.2):
            self.emit(SCALE)
        for _ in range(self.rng.choice([0, 0, 1, 2])):
            self.make_hook()
        for _ in range(self.rng.randint(1, 3)):
            if self.chance(0.75):
                self.make_optimizer()
            for _ in range(self.rng.choice([0, 0, 1])):
                self.make_companion()
            if self.chance(0.45):
                self.make_step_function()
            else:
                self.make_loop()
            for _ in range(self.rng.choice([0, 1, 1, 2])):
                self.between()
        self.emit("show()")
        self.plain = True
        for name, value in self.tensors():
            if value.is_floating_point():
                self.emit(f"{name}.data.add_(0.125)")
        self.emit("for h9 in q1: h9.data.add_(0.25)")
        self.emit("show()")

    # what is trained

    def make_model(self) -> None:
        to = f".to(T.{self.dtype})"
        kind = self.rng.randrange(6)
        self.module = kind >= 2
        if kind == 0:
            self.emit(f"w1 = T.tensor([[0.5], [-0.25]], dtype=T.{self.dtype}, requires_grad=True)")
            self.emit(f"b1 = T.zeros(1, dtype=T.{self.dtype}, requires_grad=True)")
            self.emit("q1 = [w1, b1]")
            self.forward = self.one_of("{x} @ w1 + b1", "({x} @ w1 + b1).tanh()", "T.addmm(b1, {x}, w1)")
            return
        if kind == 1:
            self.emit(f"w1 = T.nn.Parameter(T.arange(6, dtype=T.{self.dtype}).view(2, 3) / 8 - 0.25)")
            self.emit(f"u1 = T.nn.Parameter(T.ones(3, 1, dtype=T.{self.dtype}) / 2)")
            self.emit(f"b1 = T.nn.Parameter(T.zeros(3, dtype=T.{self.dtype}))")
            self.emit("q1 = [w1, b1, u1]")
            self.forward = self.one_of("T.tanh({x} @ w1 + b1) @ u1", "({x} @ w1 + b1).sigmoid() @ u1",
                                       "(({x} @ w1).relu() + b1) @ w1.t()[:, :1] @ u1[:1]")  # fmt: skip
            return
        filled = "\nwith T.no_grad():\n    for h9 in m1.parameters(): h9.copy_((T.arange(h9.numel(), dtype=T.float64) + 1).sin().view(h9.shape) / 2)"
        if kind == 2:
            self.emit(f"m1 = T.nn.Linear(2, 1){to}{filled}")
        elif kind in (3, 4):
            act = self.one_of("Tanh", "Sigmoid", "ReLU")
            self.emit(f"m1 = T.nn.Sequential(T.nn.Linear(2, 3), T.nn.{act}(), T.nn.Linear(3, 1)){to}{filled}")
        else:
            self.emit(NET)
            self.emit(f"m1 = Net1(){to}{filled}")
        self.emit("q1 = list(m1.parameters())")
        self.forward = "m1({x})"

    def make_hook(self) -> None:
        i = self.rng.randrange(len(self.names["q1"]))
        choices = [
            f"q1[{i}].register_hook(lambda g: g * 0.5)",
            f"q1[{i}].register_hook(lambda g: log.append(float(g.sum())))",
            f"q1[{i}].register_hook(lambda g: g.clamp(-0.25, 0.25))",
            f"q1[{i}].register_post_accumulate_grad_hook(lambda p: [p.grad.mul_(0.5), None][1])",
            f"q1[{i}].register_post_accumulate_grad_hook(lambda p: log.append(float(p.grad.sum())))",
            f"q1[{i}].register_post_accumulate_grad_hook({self.one_of(*STEPS_IN_HOOKS)})",
        ]
        if self.module:
            choices += [
                "m1.register_forward_hook(lambda m, a, r: r * 2)",
                "m1.register_forward_hook(lambda m, a, r: log.append(float(r.detach().sum())))",
                "m1.register_forward_pre_hook(lambda m, a: (a[0] * 0.5,))",
                "m1.register_full_backward_hook(lambda m, i, o: log.append(float(o[0].sum())))",
                "m1.register_full_backward_pre_hook(lambda m, o: (o[0] * 0.5,))",
            ]
        self.emit(f"{self.new('k')} = {self.rng.choice(choices)}")

    def make_optimizer(self) -> None:
        lr = self.one_of("0.5", "0.1", "0.05", "1e-2")
        groups = f"[{{'params': q1[:1], 'lr': {self.one_of('0.1', '0.02')}}}, {{'params': q1[1:]}}]"
        params = self.one_of("q1", "q1", "q1", groups, "m1.parameters()" if self.module else "iter(q1)")
        text = self.one_of(
            "SGD({p}, lr={lr})", "SGD({p}, lr={lr})", "SGD({p}, lr={lr}, momentum=0.9)", "SGD({p}, lr={lr}, weight_decay=0.1)",
            "SGD({p}, lr={lr}, momentum=0.5, nesterov=True)", "SGD({p}, lr={lr}, momentum=0.5, dampening=0.25)",
            "SGD({p}, lr={lr}, maximize=True)", "Adam({p}, lr={lr})", "Adam({p}, lr={lr}, weight_decay=0.1)",
            "Adam({p}, lr={lr}, amsgrad=True)", "Adam({p}, lr={lr}, betas=(0.5, 0.75), eps=1e-4)", "AdamW({p}, lr={lr})",
            "AdamW({p}, lr={lr}, weight_decay=0.1)",
        )  # fmt: skip
        self.emit(f"{self.one_of('o1', 'o1', 'o2')} = T.optim.{text.format(p=params, lr=lr)}")

    def make_companion(self) -> None:
        """What a script keeps beside its parameters."""
        choices = [
            "a1 = [p.detach().clone() for p in q1]", "a1 = [p.data.clone() for p in q1]", "a1 = copy.deepcopy(q1)",
            "b2 = [T.zeros_like(p) for p in q1]", "b2 = [T.zeros_like(p.data) for p in q1]",
        ]  # fmt: skip
        if self.module:
            choices += [
                "m2 = copy.deepcopy(m1)",
                "m2 = copy.deepcopy(m1)",
                "s1 = copy.deepcopy(m1.state_dict())",
                "s1 = m1.state_dict()",
            ]
            choices += [
                "s1 = {k: v.clone() for k, v in m1.state_dict().items()}",
                "a1 = [p.detach().clone() for p in m1.parameters()]",
            ]
        self.emit(self.rng.choice(choices))

    def has(self, name: str) -> bool:
        return name in self.names

    # the pieces of a step, each a list of lines

    def zero(self, first: bool = False) -> list[Line]:
        choices = [
            "for p in q1: p.grad = None", "for p in q1:\n    if p.grad is not None: p.grad.zero_()",
            "for p in q1:\n    if p.grad is not None: p.grad.detach_(); p.grad.zero_()",
            "for p in q1:\n    if p.grad is not None: p.grad.data.zero_()",
            "for p in q1:\n    if p.grad is not None: p.grad = T.zeros_like(p.grad)",
            "for p in q1:\n    if p.grad is not None: p.grad *= 0.5",
            "for p in q1: p.grad = T.zeros_like(p)", "pass",
            "if k % 2 == 0:\n    for p in q1: p.grad = None",
        ]  # fmt: skip
        if self.module:
            choices += ["m1.zero_grad()", "m1.zero_grad()", "m1.zero_grad(set_to_none=False)"]
        if self.has("o1"):
            choices += ["o1.zero_grad()"] * 5 + ["o1.zero_grad(set_to_none=False)"] * 2
        return [Line(self.rng.choice(choices))]

    def batch(self) -> list[Line]:
        half = self.rows // 2
        text = self.one_of(
            "x2, y2 = x1, y1", "x2, y2 = x1, y1", f"x2, y2 = x1[k % 2 * {half}:][:{half}], y1[k % 2 * {half}:][:{half}]",
            f"h1 = T.tensor([k % {self.rows}, (k + 1) % {self.rows}]); x2, y2 = x1[h1], y1[h1]",
            "x2, y2 = x1[::2], y1[::2]", f"x2, y2 = x1.split({half})[k % 2], y1.split({half})[k % 2]", "x2, y2 = x1 + 0.01 * k, y1",
        )  # fmt: skip
        return [Line(text)]

    def loss(self) -> list[Line]:
        prediction = self.forward.format(x="x2")
        loss = self.one_of(
            "((r1 - y2) ** 2).mean()", "((r1 - y2) ** 2).sum()", "F.mse_loss(r1, y2)", "F.l1_loss(r1, y2)", "F.huber_loss(r1, y2)",
            "F.smooth_l1_loss(r1, y2)", "F.binary_cross_entropy_with_logits(r1, (y2 > 0).to(r1.dtype))", "(r1 - y2).abs().mean()",
            "F.softplus(r1 * y2).mean()", "(r1.sigmoid() - y2).pow(2).mean()", "(r1 * y2).sum() / len(x2)", "-F.logsigmoid(r1 * y2).mean()",
            "((r1 - y2) ** 2).mean() + 0.01 * sum((p * p).sum() for p in q1)", "((r1 - y2) ** 2).mean() + 0.01 * q1[0].abs().sum()",
            "F.cross_entropy(T.cat([r1, -r1], 1), (y2[:, 0] > 0).long())", "T.logsumexp(r1 - y2, 0).sum()",
        )  # fmt: skip
        lines = [Line(f"r1 = {prediction}"), Line(f"l1 = {loss}")]
        if self.has("Cube1") and self.chance(0.5):
            lines.append(Line("l1 = l1 + 0.1 * Cube1.apply(r1).sum()"))
        if self.chance(0.12):
            lines.append(Line("r1.retain_grad()"))
        if self.chance(0.1):
            lines.append(Line("r1.register_hook(lambda g: g * 0.5)"))
        if self.chance(0.08):
            lines.append(Line("g1 = T.autograd.grad(l1, q1, create_graph=True, allow_unused=True)"))
            lines.append(Line("l1 = l1 + 0.1 * sum((g * g).sum() for g in g1 if g is not None)"))
        elif self.chance(0.06):
            x = "x2.detach().clone().requires_grad_()"
            lines = [Line(f"x2 = {x}"), *lines]
            lines.append(
                Line(
                    "g1, = T.autograd.grad(r1.sum(), x2, create_graph=True); l1 = l1 + ((g1.pow(2).sum(1) + 0.1).sqrt() - 1).pow(2).mean()"
                )
            )
        if self.has("m2") and self.chance(0.3):
            lines.append(Line("with T.no_grad(): r2 = m2(x2)"))
            lines.append(Line("l1 = l1 + F.mse_loss(r1, r2)"))
        if not self.plain and self.chance(0.12):
            lines.append(Line("if l1.item() > 0.2: l1 = l1 * 0.5"))
        if self.chance(0.08):
            lines.append(Line("if k % 2: l1 = l1 * 2"))
        return lines

    def back(self) -> list[Line]:
        return [Line(self.one_of(
            "l1.backward()", "l1.backward()", "l1.backward()", "l1.backward()", "l1.backward(retain_graph=True)", "(l1 / 2).backward()",
            "l1.backward(retain_graph=True); l1.backward()", "T.autograd.backward([l1])", "l1.backward(inputs=q1[:1])",
            "for p, g in zip(q1, T.autograd.grad(l1, q1, allow_unused=True)): p.grad = g",
            "for p, g in zip(q1, T.autograd.grad(l1, q1)): p.grad = g if p.grad is None else p.grad + g",
            "g2 = T.autograd.grad(l1, q1)\nfor p, g in zip(q1, g2): p.grad = g.detach().clone()", "l1.backward(gradient=T.full_like(l1, 0.5))",
            "l1.backward(create_graph=True)\nfor p in q1: p.grad = p.grad.detach()",
            "g2 = T.autograd.grad(l1, q1)\nfor p, g in zip(q1, T.cat([g.reshape(-1) for g in g2]).split([p.numel() for p in q1])): p.grad = g.view_as(p)",
            "l1.backward()\nfor p in q1: p.grad = p.grad[:]", "h2 = q1[0].grad; q1[0].grad = None; l1.backward(); q1[0].grad = q1[0].grad if h2 is None else h2",
        ))]  # fmt: skip

    def change_gradients(self) -> list[Line]:
        if self.chance(0.6):
            return []
        i = self.rng.randrange(len(self.names["q1"]))
        return [Line(self.one_of(
            "T.nn.utils.clip_grad_norm_(q1, 0.5)", "T.nn.utils.clip_grad_value_(q1, 0.1)", "for p in q1: p.grad.mul_(0.5)",
            "for p in q1: p.grad = p.grad * 0.5", "for p in q1: p.grad.data.clamp_(-0.1, 0.1)", "for p in q1: p.grad /= 2",
            "for p in q1: p.grad += 0.1 * p.data", "for p in q1: p.grad.add_(p.detach(), alpha=0.1)", f"q1[{i}].grad[0] = 0.",
            f"q1[{i}].grad = None", f"q1[{i}].grad.zero_()", f"q1[{i}].grad.copy_(q1[{i}].data)",
            "h2 = sum((p.grad ** 2).sum() for p in q1).sqrt()\nfor p in q1: p.grad.mul_(1 / (h2 + 1))",
            "for p in q1: p.grad.copy_(p.grad.sign())", "for p in q1: p.grad[p.grad > 0.1] = 0.1",
            f"r3 = q1[{i}].grad.view(-1)", f"r3 = q1[{i}].grad", f"q1[{i}].grad.view(-1)[0] = 0.25", f"q1[{i}].grad = q1[{i}].data.clone()",
            f"q1[{i}].grad.detach().mul_(0.5); r3 = q1[{i}].grad.detach()",
            "h2 = T.cat([p.grad.view(-1) for p in q1]).norm()\nfor p in q1: p.grad.div_(h2.clamp(min=1.0))",
        ))]  # fmt: skip

    def take_step(self) -> list[Line]:
        if self.has("o1") and self.chance(0.6):
            text = self.one_of("o1.step()", "o1.step()", "o1.step()", "if k % 2: o1.step()")
            return [Line(text)] + ([Line("o2.step()")] if self.has("o2") and self.chance(0.5) else [])
        lr = self.one_of("0.1", "0.05", "(0.1 / (k + 1))", "0.1 * 0.5 ** k")
        ways = [
            "p.data.add_(p.grad, alpha=-{lr})", "p.data.sub_({lr} * p.grad)", "p.data -= {lr} * p.grad", "p.data = p.data - {lr} * p.grad",
            "p.data.copy_(p.data - {lr} * p.grad)", "p.detach().add_(p.grad, alpha=-{lr})", "p.data[:] = p.data - {lr} * p.grad",
            "p.data.view(-1).sub_({lr} * p.grad.view(-1))", "p.data = (p - {lr} * p.grad).detach()", "p.data.addcmul_(p.grad, p.grad, value=-{lr})",
        ]  # fmt: skip
        silent = [
            "p.sub_({lr} * p.grad)", "p -= {lr} * p.grad", "p[:] = p - {lr} * p.grad", "p.add_(p.grad, alpha=-{lr})", "p.copy_(p - {lr} * p.grad)",
            "p.addcdiv_(p.grad, p.grad.abs() + 1, value=-{lr})", "p[0] -= {lr} * p.grad[0]", "p.mul_(0.99).sub_({lr} * p.grad)",
        ]  # fmt: skip
        if self.has("b2") and self.chance(0.6):
            with_momentum = self.one_of("v.mul_(0.9).add_(p.grad); p.data.sub_({lr} * v)", "v.data = 0.9 * v + p.grad; p.data -= {lr} * v",
                                        "v += p.grad; p.data.add_(v, alpha=-{lr})", "v.lerp_(p.grad, 0.5); p.data.sub_(v * {lr})")  # fmt: skip
            return [Line("with T.no_grad():", (Line(f"for p, v in zip(q1, b2): {with_momentum.format(lr=lr)}"),))]
        if self.chance(0.5):
            return [Line(f"for p in q1: {self.rng.choice(ways).format(lr=lr)}")]
        return [Line("with T.no_grad():", (Line(f"for p in q1: {self.rng.choice(silent + ways).format(lr=lr)}"),))]

    def afterwards(self) -> list[Line]:
        """Logging, averages, item writes, schedules."""
        lines = []
        i = self.rng.randrange(len(self.names["q1"]))
        choices = ["r3 = l1.detach()", "r3 = r1.detach()", f"r3 = q1[{i}].detach().clone()", f"with T.no_grad(): q1[{i}][0] = 0.25",
                   f"q1[{i}].data[0] = 0.25", f"with T.no_grad(): q1[{i}].clamp_(-0.5, 0.5)", f"q1[{i}].data.clamp_(max=0.5)",
                   f"with T.no_grad(): q1[{i}][0].fill_(0.25)", f"with T.no_grad(): q1[{i}][q1[{i}] > 0.2137] = 0.125",
                   f"with T.no_grad(): q1[{i}].div_(q1[{i}].norm() + 1)", f"with T.no_grad(): r3 = {self.forward.format(x='x1')}",
                   f"with T.no_grad(): q1[{i}].view(-1)[-1] += 0.125", f"q1[{i}].data = q1[{i}].data.clone()"]  # fmt: skip
        if not self.plain:
            choices += ["log.append(l1.item())", "log.append(float(l1))", "log.append(l1.detach())", "if k % 2: log.append(l1.item())",
                        f"log.append(q1[{i}].tolist())", f"log.append(q1[{i}].grad)", f"log.append(q1[{i}].data)", "log.append(l1.detach().numpy().copy())",
                        "log.append(f'{l1.item():.3f}')"]  # fmt: skip
        if self.has("a1"):
            choices += ["for a, p in zip(a1, q1): a.data.lerp_(p.data, 0.25)", "for a, p in zip(a1, q1): a.data.mul_(0.9).add_(p.data, alpha=0.1)",
                        "for a, p in zip(a1, q1): a.data = 0.9 * a.data + 0.1 * p.data", "for a, p in zip(a1, q1): a.data.copy_(p.data)"] * 2  # fmt: skip
        if self.has("m2"):
            choices += ["with T.no_grad():\n    for a, p in zip(m2.parameters(), m1.parameters()): a.mul_(0.9).add_(p, alpha=0.1)",
                        "for a, p in zip(m2.parameters(), m1.parameters()): a.data.lerp_(p.data, 0.25)",
                        "for a, p in zip(m2.parameters(), m1.parameters()): a.data.copy_(p.data)",
                        "m2.load_state_dict(m1.state_dict())"] * 2  # fmt: skip
        if self.has("o1"):
            choices += ["for g in o1.param_groups: g['lr'] *= 0.9", "o1.param_groups[0]['lr'] = 0.1 / (k + 1)"]
        for _ in range(self.rng.choice([0, 1, 1, 2])):
            lines.append(Line(self.rng.choice(choices)))
        return lines

    def mishap(self) -> list[Line]:
        error = self.one_of("r1 @ T.ones(5, 5, dtype=r1.dtype)", "q1[0].view(97)", "T.ones(2) + T.ones(3)", "raise RuntimeError", "l1.backward(); l1.backward()",
                            "q1[0].data[0, 0, 0, 0]", "T.cat([])", "F.mse_loss(r1[:2], y1.t()[:, :3])")  # fmt: skip
        when = self.one_of("", "if k == 1: ")
        return [Line(f"try:\n    {when}{error}\nexcept (RuntimeError, IndexError, ValueError): log.append(k)")]

    def step(self) -> list[Line]:
        pieces = [self.batch(), self.loss(), self.back(), self.change_gradients(), self.take_step(), self.afterwards()]
        pieces.insert(self.rng.choice([0, 1, 2]), self.zero())
        if self.chance(0.15):
            pieces.insert(self.rng.randint(4, len(pieces)), [*self.loss(), *self.back()])  # accumulated
        if not self.plain and self.chance(0.12):
            pieces.insert(self.rng.randint(3, len(pieces)), self.mishap())
        if not self.plain and self.chance(0.15):
            pieces.insert(self.rng.randint(3, len(pieces)), [Line("log.append(l1.item())")])
        if self.chance(0.1):
            pieces.append(self.zero())
        lines = [line for piece in pieces for line in piece]
        if self.threads and not self.plain:
            lines = [
                Line(line.source, line.body, self.rng.choice(["in_thread", "in_pool"])) if self.chance(0.2) else line
                for line in lines
            ]
        return lines

    def make_loop(self) -> None:
        for _ in range(6):
            if self.emit(Line(f"for k in range({self.rng.randint(2, 6)}):", tuple(self.step()))):
                return

    def make_step_function(self) -> None:
        """A step as a function, which may be compiled, and a loop that calls it."""
        for _ in range(6):
            self.plain = True
            body = self.step()
            self.plain = False
            name = self.new("f")
            by_argument = self.chance(0.6)
            text = "".join(line.text() for line in body)
            counted = "(k)" if by_argument and "k" in text.split("def ")[0] else "()"
            returned = self.one_of(
                "return l1", "return l1.detach()", "return l1, r1", "return None", "return r1.detach()"
            )
            if counted == "()":
                body = [Line("k = 1"), *body]
            parameters = counted[1:-1]
            if self.chance(0.3):
                parameters = ", ".join(filter(None, ["x1", "y1", parameters]))
            head = f"@compiled\ndef {name}({parameters}):"
            loop = [Line(f"l2 = {name}({parameters})")]
            for _ in range(self.rng.choice([0, 0, 1, 2])):
                loop.append(self.between_text())
            before = list(self.lines)
            if self.emit(Line(head, (*body, Line(returned)))) and self.emit(
                Line(f"for k in range({self.rng.randint(3, 9)}):", tuple(loop))
            ):
                return
            self.lines = before
            self.start_anew()

    def between(self) -> None:
        self.emit(self.between_text())

    def between_text(self) -> Line:
        i = self.rng.randrange(len(self.names["q1"]))
        choices = [
            f"with T.no_grad(): q1[{i}].mul_(0.5)", f"q1[{i}].data.mul_(0.5)", f"with T.no_grad(): q1[{i}][0] = 0.5", f"q1[{i}].data[0] = 0.5",
            f"q1[{i}].requires_grad_(False)", f"q1[{i}].requires_grad_(True)", f"q1[{i}].grad = None", f"q1[{i}].data = q1[{i}].data * 0.5",
            f"log.append(q1[{i}].tolist())", "x1.mul_(0.75)", "x1[0] = 0.5", "y1.data.neg_()", "y1 = y1 * 0.5", f"v1 = q1[{i}].data", f"v2 = q1[{i}].detach().view(-1)",
            f"v3 = q1[{i}].detach().numpy()", f"T.nn.init.constant_(q1[{i}], 0.25)", f"with T.no_grad(): log.append({self.forward.format(x='x1')}.sum().item())",
            "T.nn.utils.vector_to_parameters(T.nn.utils.parameters_to_vector(q1) * 0.5, q1)", "for p in q1:\n    if p.grad is not None: p.grad.zero_()",
            f"v4 = q1[{i}].grad", f"q1[{i}].grad = T.ones_like(q1[{i}])", f"v5 = T.ones_like(q1[{i}]); q1[{i}].grad = v5[:]",
            f"q1[{i}].grad = T.ones(2, *q1[{i}].shape, dtype=q1[{i}].dtype)[1]", f"k4 = q1[{i}].register_hook(lambda g: g * 0.5)",
            f"k4 = q1[{i}].register_post_accumulate_grad_hook(lambda p: [p.grad.mul_(0.5), None][1])",
            "for p in q1: p.data.add_(0.0625)", f"log.append(q1[{i}].data)", "a1 = [p.data.clone() for p in q1]",
        ]  # fmt: skip
        if self.has("v1"):
            choices += ["v1.add_(0.125)", "v1[0] = 0.375"]
        if self.has("v2"):
            choices += ["v2[-1] = 0.375", "v2.mul_(0.5)"]
        if self.has("v3"):
            choices += ["v3 += 0.125", "v3[:] = 0.25"]
        if self.has("a1"):
            choices += ["for p, a in zip(q1, a1): p.data.copy_(a)", "for p, a in zip(q1, a1): p.data, a.data = a.data, p.data", "for p, a in zip(q1, a1): p.data = a.data.clone()",
                        "with T.no_grad():\n    for p, a in zip(q1, a1): p.copy_(a)"]  # fmt: skip
        if self.has("o1"):
            choices += ["o1.param_groups[0]['lr'] *= 0.5", "s2 = o1.state_dict()", "s2 = copy.deepcopy(o1.state_dict())", "o1.zero_grad()",
                        "o1 = T.optim.SGD(q1, lr=0.1, momentum=0.5)", "o1 = T.optim.Adam(q1, lr=0.1)", "o1.step()", "for g in o1.param_groups: g['weight_decay'] = 0.1",
                        "o1.load_state_dict(o1.state_dict())", "q1[0].grad = None; o1.step()"]  # fmt: skip
            choices += ["o1.param_groups[0]['params'].reverse()", "o1.param_groups[0]['params'] = q1[:1]; o1.param_groups = o1.param_groups[:1]",
                        "o1.add_param_group(o1.param_groups.pop())", "o1.state.clear()"]  # fmt: skip
        if self.has("s2"):
            choices += ["o1.load_state_dict(s2)"] * 3
        if self.module:
            choices += ["m1.load_state_dict(m1.state_dict())", "s1 = copy.deepcopy(m1.state_dict())", "s1 = m1.state_dict()", "m1.eval()", "m1.train()",
                        "m1.requires_grad_(False)", "m1.requires_grad_(True)", "m1 = copy.deepcopy(m1); q1 = list(m1.parameters())", "m1.zero_grad()",
                        "q1 = list(m1.parameters())", "m1.apply(lambda m: T.nn.init.constant_(m.weight, 0.25) if isinstance(m, T.nn.Linear) else None)",
                        "for h9 in m1.buffers(): h9.mul_(0.5)", "m2 = copy.deepcopy(m1)"]  # fmt: skip
            if "Sequential" in str(type(self.names.get("m1"))):
                choices += ["m1[1] = T.nn.Tanh()", "m1[1] = T.nn.ReLU()", "m1[2].bias = None; q1 = list(m1.parameters())",
                            "m1[0].weight = T.nn.Parameter(m1[0].weight.data * 0.5); q1 = list(m1.parameters())",
                            "m1[2] = copy.deepcopy(m1[2]); q1 = list(m1.parameters())", "m1[2].weight.data = m1[0].bias.data.view(1, 3)"]  # fmt: skip
            if self.has("Net1") and self.has("m1"):
                choices += ["m1.act = T.nn.ReLU()", "m1.scale = T.nn.Parameter(m1.scale.data.clone()); q1 = list(m1.parameters())", "m1.seen.zero_()",
                            "m1.average = T.zeros(2, dtype=x1.dtype)", "m1.scale.data = m1.first.bias.data"]  # fmt: skip
        if self.has("s1"):
            choices += ["m1.load_state_dict(s1)"] * 3
        if self.has("m2"):
            choices += ["m1.load_state_dict(m2.state_dict())", "for a, p in zip(m2.parameters(), m1.parameters()): a.data, p.data = p.data, a.data",
                        "m1, m2 = m2, m1; q1 = list(m1.parameters())"]  # fmt: skip
        for name in ("k1", "k2", "k3", "k4"):
            if self.has(name):
                choices += [f"{name}.remove()"] * 2
        return Line(self.rng.choice(choices))


def generate(seed: int, torch: Any, threads: bool) -> programs.Program:
    writer = Training(seed, torch, threads)
    writer.write()
    return writer.program()
