"""fastgrad.nn behaves as torch.nn.

Every test takes a library `t` and runs on fastgrad and, where installed, on PyTorch. What both must
satisfy is written out here; so PyTorch confirms the expectations, and fastgrad has to meet them.
"""

import copy
import gc
import importlib
import math
import pickle
import warnings
import weakref
from collections import OrderedDict

import numpy as np
import pytest


@pytest.fixture(params=["fastgrad", "torch"])
def t(request):
    library = pytest.importorskip(request.param)
    importlib.import_module(f"{request.param}.nn.utils")
    library.manual_seed(0)
    return library


@pytest.fixture
def fastgrad():
    return pytest.importorskip("fastgrad")


def neutral(error):
    """The message of an error without the library's name."""
    return str(error.value).replace("fastgrad.nn.", "nn.").replace("torch.nn.", "nn.").replace("fastgrad", "torch")


def values(tensor):
    return tensor.detach().numpy()


def two_layers(t):
    return t.nn.Sequential(t.nn.Linear(3, 4), t.nn.Tanh(), t.nn.Linear(4, 2))


# --- Parameter ---


def test_a_parameter_is_a_leaf_tensor_that_shares_memory(t):
    data = t.ones(3)
    p = t.nn.Parameter(data)
    assert isinstance(p, t.Tensor) and isinstance(p, t.nn.Parameter)
    assert p.is_leaf and p.requires_grad and p.grad is None and not data.requires_grad
    data[0] = 5.0
    assert p[0].item() == 5.0


def test_a_parameter_prints_as_such(t):
    assert repr(t.nn.Parameter(t.ones(2))) == "Parameter containing:\ntensor([1., 1.], requires_grad=True)"
    assert repr(t.nn.Parameter(t.ones(1), requires_grad=False)) == "Parameter containing:\ntensor([1.])"


def test_operations_on_parameters_give_plain_tensors(t):
    p = t.nn.Parameter(t.ones(2))
    for result in (p * 2, -p, p.sum(), p.reshape(1, 2), p.detach(), p.clone(), p[0]):
        assert not isinstance(result, t.nn.Parameter)


def test_a_parameter_made_of_a_result_has_no_history(t):
    x = t.ones(2, requires_grad=True)
    p = t.nn.Parameter(x * 3)
    assert p.is_leaf and p.grad_fn is None
    (p * 2).sum().backward()
    assert x.grad is None and p.grad.tolist() == [2.0, 2.0]


def test_a_parameter_of_integers_is_refused_unless_frozen(t):
    with pytest.raises(RuntimeError, match="Only Tensors of floating point and complex dtype can require gradients"):
        t.nn.Parameter(t.tensor([1]))
    assert not t.nn.Parameter(t.tensor([1]), requires_grad=False).requires_grad


def test_parameters_are_copied_and_pickled(t):
    p = t.nn.Parameter(t.tensor([1.0, 2.0]), requires_grad=False)
    for other in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert type(other) is type(p) and other is not p
        assert other.tolist() == [1.0, 2.0] and not other.requires_grad


def test_a_parameter_updated_in_place_stays_the_registered_one(t):
    layer = t.nn.Linear(2, 1)
    weight = layer.weight
    with t.no_grad():
        layer.weight -= 1.0
        layer.weight.mul_(0.0)
    assert layer.weight is weight and isinstance(weight, t.nn.Parameter)
    assert next(layer.parameters()) is weight and weight.tolist() == [[0.0, 0.0]]


# --- attributes of modules ---


class Zoo:
    """Makes a module with one of everything."""

    def __new__(cls, t):
        class Net(t.nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = t.nn.Parameter(t.ones(1))
                self.hidden = t.nn.Linear(2, 3)
                self.register_parameter("absent", None)
                self.register_buffer("mean", t.zeros(3))
                self.register_buffer("cache", t.zeros(1), persistent=False)
                self.width = 3

            def forward(self, x):
                return self.scale * self.hidden(x) - self.mean

        return Net()


def test_attributes_are_registered_by_kind(t):
    net = Zoo(t)
    assert [n for n, _ in net.named_parameters()] == ["scale", "hidden.weight", "hidden.bias"]
    assert [n for n, _ in net.named_buffers()] == ["mean", "cache"]
    assert [n for n, _ in net.named_children()] == ["hidden"]
    assert [n for n, _ in net.named_modules()] == ["", "hidden"]
    assert net.absent is None and net.width == 3
    assert net.scale is net._parameters["scale"] and net.mean is net._buffers["mean"]


def test_replacing_and_deleting_attributes_keeps_the_tables_right(t):
    net = Zoo(t)
    new = t.nn.Parameter(t.zeros(1))
    net.scale = new
    assert net.scale is new and next(n for n, _ in net.named_parameters()) == "scale"
    net.scale = None
    assert net.scale is None and [n for n, _ in net.named_parameters()] == ["hidden.weight", "hidden.bias"]
    net.scale = new
    assert net.scale is new
    net.mean = t.ones(3)
    assert net.mean.tolist() == [1.0, 1.0, 1.0] and list(net.state_dict())[-1] != "cache"
    del net.scale, net.mean, net.hidden, net.width
    for name in ("scale", "mean", "hidden", "width"):
        assert not hasattr(net, name)
    assert list(net.parameters()) == [] and [n for n, _ in net.named_buffers()] == ["cache"]


def test_an_attribute_changes_kind(t):
    net = Zoo(t)
    net.width = t.nn.Parameter(t.ones(1))
    assert "width" in dict(net.named_parameters())
    net.hidden = t.nn.Parameter(t.ones(1))
    assert "hidden" in dict(net.named_parameters()) and list(net.children()) == []
    net.mean = t.nn.Linear(1, 1)
    assert "mean" in dict(net.named_children()) and "mean" not in dict(net.named_buffers())
    net.plain = t.ones(2)
    assert "plain" not in dict(net.named_buffers()) and net.plain.tolist() == [1.0, 1.0]
    net.plain = t.nn.Parameter(t.ones(2))
    assert "plain" in dict(net.named_parameters())


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("scale", lambda t: t.ones(1), "cannot assign 'torch.FloatTensor' as parameter 'scale' (nn.Parameter or None"),
        ("scale", lambda t: 3, "cannot assign 'int' as parameter 'scale' (nn.Parameter or None expected)"),
        ("hidden", lambda t: 3, "cannot assign 'int' as child module 'hidden' (nn.Module or None expected)"),
        ("mean", lambda t: 3.0, "cannot assign 'float' as buffer 'mean' ("),
    ],
)
def test_an_attribute_of_the_wrong_kind_is_refused(t, name, value, message):
    with pytest.raises(TypeError) as error:
        setattr(Zoo(t), name, value(t))
    assert message in neutral(error)


def test_a_module_over_a_parameter_is_refused(t):
    with pytest.raises(TypeError, match="as parameter 'scale'"):
        Zoo(t).scale = t.nn.ReLU()


def test_an_absent_attribute_is_an_attribute_error(t):
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'foo'"):
        t.nn.Linear(1, 1).foo  # noqa: B018
    with pytest.raises(AttributeError):
        del t.nn.Linear(1, 1).foo


def test_registration_before_init_is_refused(t):
    def without_init(value):
        class Net(t.nn.Module):
            def __init__(self):
                self.x = value()

        return Net

    with pytest.raises(AttributeError, match=r"cannot assign parameters before Module.__init__\(\) call"):
        without_init(lambda: t.nn.Parameter(t.ones(1)))()
    with pytest.raises(AttributeError, match=r"cannot assign module before Module.__init__\(\) call"):
        without_init(t.nn.ReLU)()


@pytest.mark.parametrize(
    "register, error, message",
    [
        (lambda t, m: m.register_parameter("a.b", None), KeyError, 'parameter name can\'t contain "."'),
        (lambda t, m: m.register_parameter("", None), KeyError, "parameter name can't be empty string"),
        (lambda t, m: m.register_parameter(3, None), TypeError, "parameter name should be a string. Got int"),
        (lambda t, m: m.register_parameter("width", None), KeyError, "attribute 'width' already exists"),
        (lambda t, m: m.register_parameter("p", t.ones(1)), TypeError, "object to parameter 'p' (nn.Parameter or None"),
        (lambda t, m: m.register_buffer("a.b", None), KeyError, 'buffer name can\'t contain "."'),
        (lambda t, m: m.register_buffer("width", None), KeyError, "attribute 'width' already exists"),
        (lambda t, m: m.register_buffer("b", 3), TypeError, "cannot assign 'int' object to buffer 'b' (torch Tensor"),
        (lambda t, m: m.add_module("a.b", None), KeyError, 'module name can\'t contain ".", got: a.b'),
        (lambda t, m: m.add_module("", None), KeyError, "module name can't be empty string"),
        (lambda t, m: m.add_module("forward", t.nn.ReLU()), KeyError, "attribute 'forward' already exists"),
        (lambda t, m: m.register_module("m", 3), TypeError, "int is not a Module subclass"),
    ],
)
def test_registration_of_nonsense_is_refused(t, register, error, message):
    with pytest.raises(error) as caught:
        register(t, Zoo(t))
    assert message in neutral(caught).replace('\\"', '"').replace("\\'", "'")


def test_what_is_set_directly_is_what_forward_reads(fastgrad):
    net = Zoo(fastgrad)
    assert net.__dict__["scale"] is net._parameters["scale"]
    assert net.__dict__["hidden"] is net._modules["hidden"]
    other = copy.copy(net)
    other.scale = fastgrad.nn.Parameter(fastgrad.zeros(1))
    assert net.scale.item() == 1.0 and net._parameters["scale"].item() == 1.0


def test_a_module_is_freed_without_the_garbage_collector(t):
    gc.disable()
    try:
        net = two_layers(t)
        gone = weakref.ref(net)
        del net
        assert gone() is None
    finally:
        gc.enable()


def test_the_structure_version_counts_what_a_recorded_step_must_notice(fastgrad):
    from fastgrad.nn.module import structure_version

    nn = fastgrad.nn
    net = Zoo(fastgrad)

    def changes(action):
        before = structure_version[0]
        action()
        return structure_version[0] != before

    assert changes(lambda: setattr(net, "scale", nn.Parameter(fastgrad.ones(1))))
    assert changes(lambda: setattr(net, "mean", fastgrad.ones(3)))
    assert changes(lambda: setattr(net, "hidden", nn.Linear(2, 3)))
    assert changes(lambda: net.register_buffer("other", None))
    assert changes(lambda: delattr(net, "other"))
    assert changes(lambda: setattr(net, "width", 4))
    assert changes(net.eval) and not changes(net.eval) and changes(net.train) and not changes(net.train)
    handle = net.register_forward_hook(lambda *_: None)
    assert changes(handle.remove)
    assert changes(lambda: net.double())  # buffers are new objects
    x = fastgrad.ones(1, 2, dtype=fastgrad.float64)
    assert not changes(lambda: net(x).sum().backward())
    assert not changes(net.zero_grad)


# --- walking ---


def test_shared_parameters_and_modules_come_once(t):
    layer = t.nn.Linear(2, 2)
    net = t.nn.Sequential(layer, t.nn.ReLU(), layer)
    assert len(list(net.parameters())) == 2 and len(list(net.modules())) == 3 and len(list(net.children())) == 2
    assert [n for n, _ in net.named_parameters(remove_duplicate=False)] == [
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    ]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_paths_and_prefixes(t):
    net = t.nn.Sequential(OrderedDict(a=t.nn.Sequential(t.nn.Linear(1, 1)), b=t.nn.ReLU()))
    assert [n for n, _ in net.named_modules(prefix="net")] == ["net", "net.a", "net.a.0", "net.b"]
    assert [n for n, _ in net.named_parameters(prefix="net")] == ["net.a.0.weight", "net.a.0.bias"]
    assert list(net.named_parameters(recurse=False)) == []
    assert net.get_submodule("a.0") is net.a[0] and net.get_submodule("") is net
    assert net.get_parameter("a.0.weight") is net.a[0].weight
    with pytest.raises(AttributeError, match="Sequential has no attribute `c`"):
        net.get_submodule("a.c")
    with pytest.raises(AttributeError, match=r"`weight` is not an nn.Module"):
        net.get_submodule("a.0.weight")
    with pytest.raises(AttributeError, match=r"`a` is not an nn.Parameter"):
        net.get_parameter("a")
    assert Zoo(t).get_buffer("mean").tolist() == [0.0, 0.0, 0.0]


def test_apply_visits_children_first(t):
    seen = []
    net = two_layers(t)
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert seen == ["Linear", "Tanh", "Linear", "Sequential"]


# --- modes, gradients, dtypes ---


def test_train_and_eval_reach_every_module(t):
    net = t.nn.Sequential(t.nn.Dropout(0.5), t.nn.Sequential(t.nn.Dropout(0.5)))
    assert net.eval() is net and not any(m.training for m in net.modules())
    x = t.ones(50)
    assert net(x).tolist() == [1.0] * 50
    assert net.train() is net and all(m.training for m in net.modules())
    assert set(net(x).tolist()) <= {0.0, 4.0}
    with pytest.raises(ValueError, match="training mode is expected to be boolean"):
        net.train(1)


def test_requires_grad_and_zero_grad(t):
    net = two_layers(t)
    net(t.ones(1, 3)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    kept = net[0].weight.grad
    net.zero_grad(set_to_none=False)
    assert net[0].weight.grad is not None and net[0].weight.grad.abs().sum().item() == 0.0
    assert kept.abs().sum().item() == 0.0
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert net.requires_grad_(False) is net and not any(p.requires_grad for p in net.parameters())
    assert not net(t.ones(1, 3)).requires_grad


def test_conversion_is_in_place_and_spares_integers(t):
    net = Zoo(t)
    net.register_buffer("count", t.tensor(3))
    weight = net.hidden.weight
    net(t.ones(1, 2)).sum().backward()
    assert net.double() is net
    assert net.hidden.weight is weight and weight.dtype == t.float64 and weight.grad.dtype == t.float64
    assert net.mean.dtype == t.float64 and net.count.dtype == t.int64
    assert net.to(t.float32).scale.dtype == t.float32 and net.to("cpu") is net and net.cpu() is net
    assert net.to(t.device("cpu"), t.float64).scale.dtype == t.float64
    assert net.to(t.ones(1)).scale.dtype == t.float32 and net.double().float().scale.dtype == t.float32
    assert net.to(device="cpu", dtype=t.float64).mean.dtype == t.float64
    with pytest.raises(TypeError, match=r"nn.Module.to only accepts floating point"):
        net.to(t.int64)


def test_there_is_no_cuda(fastgrad):
    with pytest.raises((RuntimeError, AssertionError)):
        fastgrad.nn.Linear(1, 1).to("cuda")
    with pytest.raises((RuntimeError, AssertionError)):
        fastgrad.nn.Linear(1, 1).cuda()


# --- state dict ---


def test_a_state_dict_holds_parameters_and_persistent_buffers(t):
    net = Zoo(t)
    state = net.state_dict()
    assert list(state) == ["scale", "mean", "hidden.weight", "hidden.bias"]
    assert not any(v.requires_grad for v in state.values())
    assert net.state_dict(keep_vars=True)["scale"] is net.scale
    assert next(iter(net.state_dict(prefix="net."))) == "net.scale"
    with t.no_grad():
        net.scale.fill_(7.0)
    assert state["scale"].item() == 7.0


def test_a_state_dict_is_loaded_into_the_same_parameters(t):
    source, target = Zoo(t), Zoo(t)
    with t.no_grad():
        source.scale.fill_(3.0)
        source.mean.fill_(0.5)
    scale = target.scale
    answer = target.load_state_dict(source.state_dict())
    assert str(answer) == "<All keys matched successfully>" and answer.missing_keys == []
    assert target.scale is scale and scale.requires_grad
    x = t.ones(4, 2)
    assert np.array_equal(values(target(x)), values(source(x)))
    with t.no_grad():
        source.scale.fill_(0.0)
    assert target.scale.item() == 3.0


def test_what_does_not_match_is_listed(t):
    state = {"weight": t.ones(3, 2), "x": t.ones(2), "y.z": t.ones(1)}
    with pytest.raises(RuntimeError) as error:
        t.nn.Linear(2, 2).load_state_dict(state)
    assert neutral(error) == (
        "Error(s) in loading state_dict for Linear:\n"
        '\tMissing key(s) in state_dict: "bias". \n'
        '\tUnexpected key(s) in state_dict: "x", "y.z". \n'
        "\tsize mismatch for weight: copying a param with shape torch.Size([3, 2]) from checkpoint, "
        "the shape in current model is torch.Size([2, 2])."
    )


def test_loading_without_strict_returns_what_did_not_match(t):
    net = two_layers(t)
    answer = net.load_state_dict({"0.bias": t.ones(4), "9.bias": t.ones(1)}, strict=False)
    assert answer.missing_keys == ["0.weight", "2.weight", "2.bias"] and answer.unexpected_keys == ["9.bias"]
    assert net[0].bias.tolist() == [1.0] * 4
    with pytest.raises(RuntimeError, match=r"size mismatch for 0.bias"):
        net.load_state_dict({"0.bias": t.ones(5)}, strict=False)


def test_loading_nonsense(t):
    with pytest.raises(TypeError, match="Expected state_dict to be dict-like, got <class 'list'>"):
        t.nn.Linear(1, 1).load_state_dict([1])
    with pytest.raises(RuntimeError, match='While copying the parameter named "bias", expected'):
        t.nn.Linear(1, 1).load_state_dict({"weight": t.ones(1, 1), "bias": 3.0})


def test_loading_with_assign_binds(t):
    layer = t.nn.Linear(2, 1)
    weight = t.zeros(1, 2)
    layer.load_state_dict({"weight": weight, "bias": t.zeros(1)}, assign=True)
    assert isinstance(layer.weight, t.nn.Parameter) and layer.weight.requires_grad
    weight[0, 0] = 4.0
    assert layer.weight[0, 0].item() == 4.0


def test_extra_state_is_saved_and_loaded(t):
    class Counting(t.nn.Module):
        count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    a, b = t.nn.Sequential(Counting()), t.nn.Sequential(Counting())
    a[0].count = 5
    assert list(a.state_dict()) == ["0._extra_state"]
    b.load_state_dict(a.state_dict())
    assert b[0].count == 5
    with pytest.raises(RuntimeError, match=r'Missing key.*"0._extra_state"'):
        b.load_state_dict({})


def test_modules_are_copied_and_pickled(t):
    net = two_layers(t)
    x = t.ones(2, 3)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert np.array_equal(values(other(x)), values(net(x)))
        assert not {id(p) for p in other.parameters()} & {id(p) for p in net.parameters()}
        with t.no_grad():
            for p in other.parameters():
                p.zero_()
        assert other(x).abs().sum().item() == 0.0 and net(x).abs().sum().item() > 0.0
        assert other[0].weight is next(other.parameters())


def test_sharing_survives_a_deep_copy(t):
    layer = t.nn.Linear(2, 2)
    net = copy.deepcopy(t.nn.Sequential(layer, layer))
    assert net[0] is net[1] and len(list(net.parameters())) == 2


# --- hooks ---


def test_hooks_run_in_order_and_change_arguments_and_results(t):
    layer, log = t.nn.Identity(), []
    layer.register_forward_pre_hook(lambda m, args: log.append("pre"))
    pre = layer.register_forward_pre_hook(lambda m, args: args[0] + 1)
    layer.register_forward_hook(lambda m, args, out: log.append(("after", args[0], out)))
    layer.register_forward_hook(lambda m, args, out: out * 10)
    layer.register_forward_hook(lambda m, args, out: log.append("first"), prepend=True)
    assert layer(1) == 20 and log == ["pre", "first", ("after", 2, 2)]
    pre.remove()
    pre.remove()
    assert layer(1) == 10


def test_hooks_see_keywords_where_asked(t):
    class Add(t.nn.Module):
        def forward(self, a, b=0):
            return a + b

    layer, seen = Add(), []
    layer.register_forward_pre_hook(lambda m, args, kwargs: (args, {"b": kwargs["b"] + 1}), with_kwargs=True)
    layer.register_forward_hook(lambda m, args, kwargs, out: seen.append((args, kwargs, out)), with_kwargs=True)
    assert layer(1, b=2) == 4 and seen == [((1,), {"b": 3}, 4)]
    layer.register_forward_pre_hook(lambda m, args, kwargs: 3, with_kwargs=True)
    with pytest.raises(RuntimeError, match="forward pre-hook must return None or a tuple"):
        layer(1, b=2)


def test_a_handle_ends_with_its_block(t):
    layer = t.nn.Identity()
    with layer.register_forward_hook(lambda m, args, out: out + 1):
        assert layer(1) == 2
    assert layer(1) == 1


def test_a_hook_that_must_always_run_runs(t):
    class Broken(t.nn.Module):
        def forward(self, x):
            raise ArithmeticError("broken")

    layer, log = Broken(), []
    layer.register_forward_hook(lambda m, args, out: log.append("never"))
    layer.register_forward_hook(lambda m, args, out: log.append("always"), always_call=True)
    with pytest.raises(ArithmeticError):
        layer(1)
    assert log == ["always"]


def test_a_module_without_forward_says_so(t):
    with pytest.raises(NotImplementedError, match=r'Module \[Module\] is missing the required "forward" function'):
        t.nn.Module()(1)


# --- printed form ---


def test_modules_print_as_pytorch_prints_them(t):
    nn = t.nn
    assert str(nn.Linear(2, 3, bias=False)) == "Linear(in_features=2, out_features=3, bias=False)"
    assert str(nn.ReLU()) == "ReLU()" and str(nn.ReLU(inplace=True)) == "ReLU(inplace=True)"
    assert str(nn.Dropout(0.1)) == "Dropout(p=0.1, inplace=False)" and str(nn.Softmax(1)) == "Softmax(dim=1)"
    assert str(nn.Flatten()) == "Flatten(start_dim=1, end_dim=-1)" and str(nn.MSELoss()) == "MSELoss()"
    assert str(nn.CrossEntropyLoss()) == "CrossEntropyLoss()" and str(nn.Sequential()) == "Sequential()"
    assert str(nn.Sequential(nn.Tanh(), nn.Sequential(nn.Sigmoid()))) == (
        "Sequential(\n  (0): Tanh()\n  (1): Sequential(\n    (0): Sigmoid()\n  )\n)"
    )
    assert str(nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Tanh()])) == (
        "ModuleList(\n  (0-1): 2 x ReLU()\n  (2): Tanh()\n)"
    )
    assert str(nn.ModuleDict({"a": nn.Tanh()})) == "ModuleDict(\n  (a): Tanh()\n)"
    assert str(nn.ParameterList([t.ones(2, 3), t.ones(1)])) == (
        f"ParameterList(\n    (0): Parameter containing: [{t.float32} of size 2x3]\n"
        f"    (1): Parameter containing: [{t.float32} of size 1]\n)"
    )


def test_extra_repr_of_several_lines(t):
    class Net(t.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = t.nn.ReLU()

        def extra_repr(self):
            return "a=1\nb=2"

    assert str(Net()) == "Net(\n  a=1\n  b=2\n  (inner): ReLU()\n)"


# --- containers ---


def test_sequential_is_edited_like_a_list(t):
    nn = t.nn
    a, b, c = nn.Linear(1, 1), nn.ReLU(), nn.Tanh()
    net = nn.Sequential(a, b)
    assert net.append(c) is net and list(net) == [a, b, c] and net[-1] is c and len(net) == 3
    assert isinstance(net[:2], nn.Sequential) and list(net[:2]) == [a, b]
    net[1] = c
    assert list(net) == [a, c, c] and net.pop(1) is c and [n for n, _ in net.named_modules()] == ["", "0", "1"]
    net.insert(0, b)
    assert list(net) == [b, a, c] and list(net._modules) == ["0", "1", "2"] and getattr(net, "1") is a
    del net[0]
    assert list(net) == [a, c] and not hasattr(net, "2")
    net.extend([b, b])
    del net[2:]
    assert list(net + nn.Sequential(b)) == [a, c, b] and list(net * 2) == [a, c, a, c] and list(2 * net) == [a, c] * 2
    net += nn.Sequential(b)
    net *= 2
    assert list(net) == [a, c, b] * 2
    for wrong in (9, -7):
        with pytest.raises(IndexError, match=f"index {wrong} is out of range"):
            net[wrong]
    with pytest.raises(ValueError, match="add operator supports only objects of Sequential class"):
        net + 3
    with pytest.raises(ValueError, match="Non-positive multiplication factor 0"):
        net * 0


def test_sequential_takes_names(t):
    net = t.nn.Sequential(OrderedDict(first=t.nn.Linear(2, 2), last=t.nn.ReLU()))
    assert net.first is net[0] and list(net.state_dict()) == ["first.weight", "first.bias"]
    with pytest.raises(TypeError, match="int is not a Module subclass"):
        t.nn.Sequential(3)


def test_module_list_and_dict(t):
    nn = t.nn
    a, b = nn.Linear(1, 1), nn.ReLU()
    row = nn.ModuleList([a])
    assert row.append(b) is row and list(row) == [a, b] and list(row + [a]) == [a, b, a]  # noqa: RUF005
    row += [b]
    row.insert(0, b)
    assert list(row) == [b, a, b, b] and isinstance(row[1:3], nn.ModuleList) and row.pop(0) is b
    row[0] = b
    assert list(row) == [b, b, b] and len(row) == 3 and list(row._modules) == ["0", "1", "2"]
    with pytest.raises(TypeError):
        row.extend(3)
    with pytest.raises(NotImplementedError):
        row(t.ones(1))
    table = nn.ModuleDict({"a": a})
    table["b"] = b
    table.update([("c", b)])
    table.update(nn.ModuleDict({"d": a}))
    assert list(table) == ["a", "b", "c", "d"] == list(table.keys()) and list(table.values()) == [a, b, b, a]
    assert table["a"] is a and "a" in table and table.pop("a") is a and "a" not in table
    del table["b"]
    assert dict(table.items()) == {"c": b, "d": a} and len(table) == 2
    table.clear()
    assert len(table) == 0 and list(table.children()) == []
    with pytest.raises(KeyError):
        table["a"]
    with pytest.raises(KeyError, match="attribute 'keys' already exists"):
        table["keys"] = a


def test_parameter_list(t):
    ps = t.nn.ParameterList([t.ones(1), t.nn.Parameter(t.zeros(2))])
    ps.append(t.ones(3))
    ps += [t.ones(4)]
    ps[0] = t.zeros(5)
    assert [p.numel() for p in ps] == [5, 2, 3, 4] and all(isinstance(p, t.nn.Parameter) for p in ps)
    assert [n for n, _ in ps.named_parameters()] == ["0", "1", "2", "3"] and len(ps[1:3]) == 2 and ps[-1].numel() == 4
    with pytest.raises(TypeError, match="should be called with an iterable, but got Tensor"):
        ps.extend(t.ones(2))
    with pytest.raises(RuntimeError, match="ParameterList should not be called"):
        ps()


# --- layers and losses ---


def test_linear(t):
    layer = t.nn.Linear(3, 2)
    with t.no_grad():
        layer.weight.copy_(t.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]))
        layer.bias.copy_(t.tensor([0.5, -0.5]))
    assert layer(t.tensor([1.0, 1.0, 1.0])).tolist() == [6.5, 0.5]
    assert tuple(layer(t.ones(4, 5, 3)).shape) == (4, 5, 2)
    layer(t.ones(4, 3)).sum().backward()
    assert layer.weight.grad.tolist() == [[4.0] * 3] * 2 and layer.bias.grad.tolist() == [4.0, 4.0]
    assert t.nn.Linear(3, 2, bias=False).bias is None
    assert t.nn.Linear(3, 2, dtype=t.float64).weight.dtype == t.float64
    with pytest.raises(RuntimeError, match=r"mat1 and mat2 shapes cannot be multiplied \(4x2 and 3x2\)"):
        layer(t.ones(4, 2))


def test_linear_starts_within_its_bound(t):
    layer = t.nn.Linear(100, 50)
    for p in layer.parameters():
        assert 0.08 < float(abs(values(p)).max()) <= 0.1


def test_activations_and_shapes(t):
    x = t.tensor([[-1.0, 0.0, 2.0]])
    nn, a = t.nn, np.array([[-1.0, 0.0, 2.0]])
    close = lambda y, e: np.testing.assert_allclose(values(y), e, rtol=1e-6)  # noqa: E731
    close(nn.ReLU()(x), np.maximum(a, 0))
    close(nn.Tanh()(x), np.tanh(a))
    close(nn.Sigmoid()(x), 1 / (1 + np.exp(-a)))
    close(nn.Softmax(dim=1)(x), np.exp(a) / np.exp(a).sum())
    close(nn.LogSoftmax(dim=1)(x), a - np.log(np.exp(a).sum()))
    close(nn.Identity(3, name="ignored")(x), a)
    assert tuple(nn.Flatten()(t.ones(2, 3, 4)).shape) == (2, 12)
    assert tuple(nn.Flatten(0, 1)(t.ones(2, 3, 4)).shape) == (6, 4)
    y = t.tensor([-1.0, 1.0])
    assert nn.ReLU(inplace=True)(y).tolist() == [0.0, 1.0] == y.tolist()


def test_dropout(t):
    layer = t.nn.Dropout(0.25)
    y = values(layer(t.ones(10000)))
    assert set(np.round(np.unique(y), 5)) == {0.0, np.round(np.float32(4 / 3), 5)} and abs(y.mean() - 1) < 0.05
    assert t.nn.Dropout(1.0)(t.ones(3)).tolist() == [0.0] * 3 and t.nn.Dropout(0.0)(t.ones(3)).tolist() == [1.0] * 3
    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1, but got 2"):
        t.nn.Dropout(2)


def test_losses_and_reductions(t):
    nn = t.nn
    x, y = t.tensor([1.0, 3.0]), t.tensor([0.0, 1.0])
    assert nn.MSELoss()(x, y).item() == 2.5 and nn.MSELoss(reduction="sum")(x, y).item() == 5.0
    assert nn.MSELoss(reduction="none")(x, y).tolist() == [1.0, 4.0]
    a = np.array([1.0, 3.0])
    expected = np.log1p(np.exp(a)) - a * np.array([0.0, 1.0])
    assert nn.BCEWithLogitsLoss()(x, y).item() == pytest.approx(expected.mean(), rel=1e-6)
    weighted = nn.BCEWithLogitsLoss(pos_weight=t.tensor([2.0, 2.0]), reduction="none")(x, y)
    assert weighted.tolist() == pytest.approx([expected[0], 2 * expected[1]], rel=1e-5)
    logits, target = t.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 5.0]]), t.tensor([1, 0])
    log_p = values(logits) - np.log(np.exp(values(logits)).sum(1, keepdims=True))
    picked = -log_p[[0, 1], [1, 0]]
    assert nn.CrossEntropyLoss()(logits, target).item() == pytest.approx(picked.mean(), rel=1e-5)
    assert nn.CrossEntropyLoss(reduction="none")(logits, target).tolist() == pytest.approx(picked, rel=1e-5)
    w = t.tensor([3.0, 1.0, 1.0])
    assert nn.CrossEntropyLoss(weight=w)(logits, target).item() == pytest.approx((picked @ [1, 3]) / 4, rel=1e-5)
    assert nn.CrossEntropyLoss(ignore_index=0)(logits, target).item() == pytest.approx(picked[0], rel=1e-5)
    smoothed = 0.8 * picked - 0.2 * log_p.mean(1)
    assert nn.CrossEntropyLoss(label_smoothing=0.2)(logits, target).item() == pytest.approx(smoothed.mean(), rel=1e-5)
    assert nn.NLLLoss()(nn.LogSoftmax(1)(logits), target).item() == pytest.approx(picked.mean(), rel=1e-5)
    assert "weight" in nn.CrossEntropyLoss(weight=w).state_dict()


def test_the_older_names_of_reductions(t):
    with pytest.warns(UserWarning, match="please use reduction='sum' instead"):
        loss = t.nn.MSELoss(size_average=False)
    assert loss.reduction == "sum"


# --- init ---


def test_gains(t):
    gain = t.nn.init.calculate_gain
    assert (gain("linear"), gain("sigmoid"), gain("tanh"), gain("conv2d")) == (1, 1, 5 / 3, 1)
    assert gain("relu") == math.sqrt(2) and gain("leaky_relu", 1) == 1.0 and gain("selu") == 0.75
    assert gain("leaky_relu") == math.sqrt(2 / (1 + 0.01**2))
    with pytest.raises(ValueError, match="Unsupported nonlinearity nothing"):
        gain("nothing")
    with pytest.raises(ValueError, match="negative_slope True not a valid number"):
        gain("leaky_relu", True)


@pytest.mark.parametrize(
    "name, std, bound",
    [
        ("xavier_uniform_", math.sqrt(2 / 500), math.sqrt(6 / 500)),
        ("xavier_normal_", math.sqrt(2 / 500), None),
        ("kaiming_uniform_", math.sqrt(2 / 200), math.sqrt(6 / 200)),
        ("kaiming_normal_", math.sqrt(2 / 200), None),
        ("uniform_", math.sqrt(1 / 12), None),
        ("normal_", 1.0, None),
    ],
)
def test_random_initialisers(t, name, std, bound):
    w = t.nn.Parameter(t.empty(300, 200))
    assert getattr(t.nn.init, name)(w) is w and w.requires_grad and w.is_leaf
    assert values(w).std() == pytest.approx(std, rel=0.02)
    if bound:
        assert abs(values(w)).max() <= bound * (1 + 1e-6) and abs(values(w)).max() > 0.99 * bound
    generator = [t.Generator().manual_seed(3) for _ in range(2)]
    a, b = (getattr(t.nn.init, name)(t.empty(4, 5), generator=g).tolist() for g in generator)
    assert a == b


def test_fans_count_the_receptive_field(t):
    w = t.nn.init.kaiming_normal_(t.empty(64, 16, 5, 5), mode="fan_out", nonlinearity="relu")
    assert values(w).std() == pytest.approx(math.sqrt(2 / (64 * 25)), rel=0.03)
    with pytest.raises(ValueError, match="Fan in and fan out can not be computed for tensor with fewer than 2"):
        t.nn.init.xavier_uniform_(t.empty(3))
    with pytest.raises(ValueError, match="Mode sideways not supported"):
        t.nn.init.kaiming_uniform_(t.empty(3, 3), mode="sideways")
    with pytest.warns(UserWarning, match="Initializing zero-element tensors is a no-op"):
        t.nn.init.kaiming_uniform_(t.empty(0, 3))


def test_constant_initialisers(t):
    w = t.nn.Parameter(t.empty(2, 2))
    init = t.nn.init
    assert init.constant_(w, 3.0).tolist() == [[3.0, 3.0]] * 2
    assert init.ones_(w).tolist() == [[1.0, 1.0]] * 2 and init.zeros_(w).tolist() == [[0.0, 0.0]] * 2
    assert init.eye_(w).tolist() == [[1.0, 0.0], [0.0, 1.0]] and w.grad_fn is None


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (3, 2, 5)])
def test_orthogonal(t, shape):
    w = values(t.nn.init.orthogonal_(t.nn.Parameter(t.empty(*shape)), gain=2.0)).reshape(shape[0], -1)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)
    with pytest.raises(ValueError, match="Only tensors with 2 or more dimensions are supported"):
        t.nn.init.orthogonal_(t.empty(3))


# --- utils ---


def with_gradients(t, *gradients):
    parameters = [t.nn.Parameter(t.zeros(len(g))) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = t.tensor(g)
    return parameters


@pytest.mark.parametrize(
    "order, norm", [(2.0, 5.0), (1.0, 7.0), (math.inf, 4.0), (3.0, 91 ** (1 / 3)), ("inf", 4.0), (0.0, 2.0)]
)
def test_clipping_by_norm(t, order, norm):
    ps = with_gradients(t, [3.0], [0.0, 4.0])
    total = t.nn.utils.clip_grad_norm_(iter(ps), 1.0, norm_type=order)
    assert total.item() == pytest.approx(norm, rel=1e-6)
    assert ps[0].grad.item() == pytest.approx(3 / norm, rel=1e-5)
    assert ps[1].grad.tolist() == pytest.approx([0.0, 4 / norm], rel=1e-5)


def test_clipping_leaves_small_gradients_alone_and_keeps_the_objects(t):
    ps = [*with_gradients(t, [3.0, 4.0]), t.nn.Parameter(t.ones(1))]
    kept = ps[0].grad
    assert t.nn.utils.clip_grad_norm_(ps, 100.0).item() == 5.0
    assert kept.tolist() == [3.0, 4.0]
    t.nn.utils.clip_grad_norm_(ps[0], 1.0)
    assert ps[0].grad is kept and kept.tolist() == pytest.approx([0.6, 0.8], rel=1e-5) and ps[1].grad is None
    assert t.nn.utils.clip_grad_norm_([], 1.0).item() == 0.0


def test_clipping_with_nan(t):
    ps = with_gradients(t, [float("nan")])
    assert math.isnan(t.nn.utils.clip_grad_norm_(ps, 1.0).item())
    with pytest.raises(
        RuntimeError, match=r"The total norm of order 2.0 for gradients from `parameters` is non-finite"
    ):
        t.nn.utils.clip_grad_norm_(ps, 1.0, error_if_nonfinite=True)
    with pytest.warns(UserWarning, match="`parameters` is an empty generator"):
        t.nn.utils.clip_grad_norm_((p for p in []), 1.0)


def test_clipping_by_value(t):
    ps = with_gradients(t, [3.0, -4.0], [0.5])
    t.nn.utils.clip_grad_value_(ps, 1)
    assert ps[0].grad.tolist() == [1.0, -1.0] and ps[1].grad.tolist() == [0.5]


def test_parameters_as_one_vector(t):
    net = t.nn.Linear(3, 2)
    vector = t.nn.utils.parameters_to_vector(net.parameters())
    assert tuple(vector.shape) == (8,) and vector.requires_grad
    vector.square().sum().backward()
    np.testing.assert_allclose(values(net.weight.grad), 2 * values(net.weight), rtol=1e-6)
    weight = net.weight
    t.nn.utils.vector_to_parameters(t.arange(8.0), net.parameters())
    assert net.weight is weight and weight.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert net.bias.tolist() == [6.0, 7.0] and weight.requires_grad
    with pytest.raises(TypeError, match="Tensor, but got: list"):
        t.nn.utils.vector_to_parameters([1.0], net.parameters())


# --- training, against PyTorch ---


def train(t, start, x, y, optimizer, steps=20, clip=None):
    net = t.nn.Sequential(t.nn.Linear(3, 8), t.nn.Tanh(), t.nn.Linear(8, 2))
    net.load_state_dict({name: t.tensor(value) for name, value in start.items()})
    loss_of = t.nn.CrossEntropyLoss()
    optimizer = optimizer(t, net.parameters())
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(net(t.tensor(x)), t.tensor(y))
        loss.backward()
        if clip:
            t.nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
        losses.append(loss.item())
    return losses, {name: values(p) for name, p in net.state_dict().items()}


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda t, ps: t.optim.SGD(ps, lr=0.1),
        lambda t, ps: t.optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda t, ps: t.optim.Adam(ps, lr=0.01),
    ],
    ids=["sgd", "nesterov", "adam"],
)
def test_a_perceptron_trains_as_in_pytorch(fastgrad, optimizer, clip):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 3)), rng.integers(0, 2, 16)
    shapes = {"0.weight": (8, 3), "0.bias": (8,), "2.weight": (2, 8), "2.bias": (2,)}
    start = {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    x = x.astype("float32")
    ours, theirs = (train(t, start, x, y, optimizer, clip=clip) for t in (fastgrad, torch))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=2e-5)
    for name in start:
        np.testing.assert_allclose(ours[1][name], theirs[1][name], rtol=1e-4, atol=1e-6)


def test_state_dicts_cross_over_to_pytorch(fastgrad):
    torch = pytest.importorskip("torch")
    ours, theirs = two_layers(fastgrad), two_layers(torch)
    ours.load_state_dict({k: fastgrad.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    np.testing.assert_allclose(values(ours(fastgrad.tensor(x))), values(theirs(torch.tensor(x))), rtol=1e-5, atol=1e-6)


def test_no_warnings_from_building_and_calling(t):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = two_layers(t)
        model(t.ones(1, 3)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
