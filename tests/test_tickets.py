"""A ticket leaves as a file of any form and comes back; other people's tools read it; what is none is refused."""

import io
import json
import pickle
import re
import struct
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
import torch
import torch.nn.functional as F
from alone import train_and_prune
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch
from strategies import changes, one_line, replacements
from torch import nn
from torch.nn.utils import prune

from lthcore import data, lottery, tickets
from lthcore.models import build
from lthcore.runs import formats, store, sweep
from lthcore.schedule import ARCHITECTURES
from lthcore.studies import experiments

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")  # "is in beta state", says torch
FUZZ = settings(max_examples=300, deadline=None)
F32 = np.float32
KINDS = ["random", "everything", "nothing", "one weight", "but one weight"]


def made(model, kinds=("random",), seed=0, density=0.3):
    """A ticket of random values, some of them zeros of both signs, whose layers have masks of those kinds."""
    random, mask, values = np.random.default_rng(seed), {}, {}
    for i, (name, shape) in enumerate(ARCHITECTURES[model].weights.items()):
        mask[name] = {
            "random": random.random(shape) < density,
            "everything": np.ones(shape, bool), "nothing": np.zeros(shape, bool),
            "one weight": np.zeros(shape, bool), "but one weight": np.ones(shape, bool),
        }[kinds[i % len(kinds)]]  # fmt: skip
        if "one weight" in kinds[i % len(kinds)]:
            mask[name].flat[random.integers(mask[name].size)] ^= True
        weight = random.standard_normal(shape).astype(np.float32)
        weight[random.random(shape) < 0.02], weight[random.random(shape) < 0.02] = 0.0, -0.0
        values[f"{name}.weight"] = weight
        values[f"{name}.bias"] = random.standard_normal(shape[0]).astype(np.float32)
    return tickets.Ticket({"model": model, "level": 3, "test_accuracy": 97.5}, mask, values)


def same(one, other):
    """Whether arrays by name are equal to the last bit, the sign of a zero included."""
    return one.keys() == other.keys() and all(
        (a.dtype, a.shape, a.tobytes()) == (other[k].dtype, other[k].shape, other[k].tobytes()) for k, a in one.items()
    )


def expected(ticket, form):
    """What comes back by that form."""
    weights = {name: ticket.values[f"{name}.weight"] for name in ticket.mask}
    mask = {name: m & (weights[name] != 0) if form == "dense" else m for name, m in ticket.mask.items()}
    if form in ("ticket", "prune"):
        return mask, ticket.values
    zeroed = {f"{name}.weight": np.where(m, weights[name], np.float32(0)) for name, m in ticket.mask.items()}
    return mask, ticket.values | zeroed


# -------------------------------------------------------------------------------------------------- there and back


@settings(max_examples=40, deadline=None)
@given(
    model=st.sampled_from(["mlp", "lenet5"]),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    seed=st.integers(0, 2**32),
    density=st.floats(0, 1),
)
def test_what_left_comes_back_to_the_last_bit_or_as_is_said(model, kinds, seed, density):
    ticket = made(model, kinds, seed, density)
    for form in tickets.FORMS:
        content = tickets.to_bytes(ticket, form)
        back = tickets.from_bytes(content)
        mask, values = expected(ticket, form)
        assert same(back.mask, mask) and same(back.values, values), form
        assert back.facts == {**ticket.facts, "sha256": back.facts["sha256"]}
        if form != "dense" or same(mask, ticket.mask):
            assert tickets.to_bytes(back, form) == content


@pytest.mark.parametrize("form", tickets.FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_at_the_extremes_of_every_layer(kind, form):
    ticket = made("lenet5", [kind])
    back, (mask, values) = tickets.from_bytes(tickets.to_bytes(ticket, form)), expected(ticket, form)
    assert same(back.mask, mask) and same(back.values, values)


@pytest.mark.parametrize("model", ["conv2", "conv6"])
def test_convolutional_networks_come_back_as_well(model):
    ticket = made(model)
    for form in tickets.FORMS:
        back, (mask, values) = tickets.from_bytes(tickets.to_bytes(ticket, form)), expected(ticket, form)
        assert same(back.mask, mask) and same(back.values, values)


@pytest.mark.parametrize("model", ["mlp_13_10", "mlp_40", "mlp_20_20_10", "lenet5_2_4_25_18", "lenet5_1_1_1_10"])
def test_networks_of_other_sizes_come_back_as_what_they_are(model):
    ticket = made(model, density=0.9)
    for form in tickets.FORMS:
        back, (mask, values) = tickets.from_bytes(tickets.to_bytes(ticket, form)), expected(ticket, form)
        assert back.facts["model"] == model and same(back.mask, mask) and same(back.values, values)
    plain = expected(ticket, "dense")[1]
    assert tickets.from_bytes(save(plain)).facts["model"] == model  # which has no facts


def test_a_surviving_zero_stays_in_csr_and_is_lost_in_dense():
    ticket = made("mlp", ["everything"])
    ticket.values["head.weight"][2, 3] = 0
    kept = {form: tickets.from_bytes(tickets.to_bytes(ticket, form)).mask["head"][2, 3] for form in tickets.FORMS}
    assert kept == {"ticket": True, "prune": True, "dense": False, "csr": True}


def test_views_are_written_in_their_own_order():
    """safetensors writes the memory behind an array; a transpose would come back scrambled."""
    ticket = made("mlp")
    turned = {name: np.asfortranarray(v) for name, v in ticket.values.items()}
    assert not turned["fc1.weight"].flags.c_contiguous
    for form in tickets.FORMS:
        assert tickets.to_bytes(ticket._replace(values=turned), form) == tickets.to_bytes(ticket, form)
    assert np.array_equal(
        load(formats.save_tensors({"a": np.arange(6).reshape(2, 3).T}))["a"], [[0, 3], [1, 4], [2, 5]]
    )


def test_a_form_that_there_is_not_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"^form = 'pt': must be one of 'ticket', 'prune', 'dense', 'csr'$"):
        tickets.write(made("mlp"), tmp_path / "x.pt", "pt")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------- other people's tools


class Plain(nn.Module):
    """LeNet-300-100, or LeNet-5 as this study has it, written down a second time."""

    def __init__(self, model):
        super().__init__()
        if model == "lenet5":
            self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.head = {
            "mlp": lambda: (nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)),
            "lenet5": lambda: (nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)),
        }[model]()
        self.act = torch.relu if model == "mlp" else torch.tanh

    def forward(self, x):
        if hasattr(self, "conv1"):
            x = F.avg_pool2d(self.act(self.conv1(x)), 2)
            x = F.avg_pool2d(self.act(self.conv2(x)), 2)
        return self.head(self.act(self.fc2(self.act(self.fc1(x.flatten(1))))))


def ours(ticket, images):
    """Logits of `models.build` with the masked values."""
    net = build(ticket.facts["model"])
    masked = {f"{name}.weight": ticket.values[f"{name}.weight"] * m for name, m in ticket.mask.items()}
    net.load_state_dict({k: torch.from_numpy(v) for k, v in (ticket.values | masked).items()})
    with torch.no_grad():
        return net(images)


@pytest.fixture(scope="module")
def images():
    return data.whole()["test"][0][:64]


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_torch_prune_buffers_load_into_a_plain_module(model, images):
    ticket = made(model)
    state = load_torch(tickets.to_bytes(ticket, "prune"))
    pickled = io.BytesIO()
    torch.save(state, pickled)  # as the docstring says
    pickled.seek(0)
    for loaded in (state, torch.load(pickled, weights_only=True)):
        net = Plain(model)
        for name in ticket.mask:
            prune.identity(net.get_submodule(name), "weight")
        net.load_state_dict(loaded)  # strictly: no name too many or too few
        with torch.no_grad():
            assert torch.equal(net(images), ours(ticket, images))
    for name in ticket.mask:
        prune.remove(net.get_submodule(name), "weight")  # makes it permanent: the dense form
    dense = load_torch(tickets.to_bytes(ticket, "dense"))
    assert all(torch.equal(v, dense[k]) for k, v in net.state_dict().items()) and len(dense) == len(net.state_dict())
    net.load_state_dict(dense)
    with torch.no_grad():
        assert torch.equal(net(images), ours(ticket, images))


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_what_torch_pruned_elsewhere_is_read(model):
    """By its own magnitudes and by a mask of its own, in float32 and saved by safetensors' torch side."""
    torch.manual_seed(0)
    net = Plain(model)
    prune.global_unstructured([(m, "weight") for m in net.children()], prune.L1Unstructured, amount=0.8)
    prune.custom_from_mask(net.head, "weight", torch.arange(net.head.weight.numel()).view_as(net.head.weight) % 3 > 0)
    found = tickets.from_bytes(save_torch(net.state_dict(), {"format": "pt"}))
    assert found.facts == {"model": model}
    for name, layer in net.named_children():
        assert np.array_equal(found.mask[name], layer.weight_mask.bool().numpy())
        assert np.array_equal(found.values[f"{name}.weight"], layer.weight_orig.detach().numpy())
        assert np.array_equal(found.values[f"{name}.bias"], layer.bias.detach().numpy())
        prune.remove(layer, "weight")
    dense = tickets.from_bytes(save_torch(net.state_dict()))
    assert same(dense.mask, found.mask) and sum(m.sum() for m in dense.mask.values()) > 0
    parts = {}
    for name, layer in net.named_children():
        csr = layer.weight.detach().flatten(1).to_sparse_csr()
        parts[f"{name}.crow_indices"], parts[f"{name}.col_indices"] = csr.crow_indices(), csr.col_indices()
        parts[f"{name}.values"], parts[f"{name}.bias"] = csr.values(), layer.bias.detach()
    back = tickets.from_bytes(save_torch(parts))
    assert same(back.mask, dense.mask)
    assert all(np.array_equal(back.values[k], v) for k, v in dense.values.items())  # torch's pruned zeros have signs


def csr_layers(ticket):
    """The file's CSR parts: layer -> (indptr, indices, data, shape), bias."""
    tensors = load(tickets.to_bytes(ticket, "csr"))
    for name, m in ticket.mask.items():
        parts = (tensors[f"{name}.{part}"] for part in ("crow_indices", "col_indices", "values"))
        yield name, (*parts, m.reshape(len(m), -1).shape), tensors[f"{name}.bias"]


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_a_csr_model_computes_the_same_in_torch(model, images):
    """In double precision, where the order of a sum does not show; convolutions by `unfold`."""
    ticket = made(model)
    x = images.double()
    for name, (begin, columns, values, shape), bias in csr_layers(ticket):
        begin, columns, values = map(torch.from_numpy, (begin, columns, values))
        weight = torch.sparse_csr_tensor(begin, columns, values.double(), shape, check_invariants=True)
        bias, act = torch.from_numpy(bias).double(), torch.relu if model == "mlp" else torch.tanh
        if name.startswith("conv"):
            patches = F.unfold(x, 5, padding=2 if name == "conv1" else 0)  # (64, in 5 5, places)
            y = torch.stack([weight @ patch for patch in patches]) + bias[:, None]
            side = int(y.shape[-1] ** 0.5)
            x = F.avg_pool2d(act(y.view(len(y), -1, side, side)), 2)
        else:
            y = (weight @ x.flatten(1).T).T + bias
            x = y if name == "head" else act(y)
    wanted = build(model).double()
    masked = {f"{name}.weight": ticket.values[f"{name}.weight"] * m for name, m in ticket.mask.items()}
    wanted.load_state_dict({k: torch.from_numpy(v) for k, v in (ticket.values | masked).items()})
    with torch.no_grad():
        torch.testing.assert_close(x, wanted(images.double()), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("kinds", [["random"], ["nothing", "one weight", "everything"]])
def test_scipy_reads_the_csr_parts(kinds):
    ticket = made("lenet5", kinds)
    for name, (begin, columns, values, shape), _ in csr_layers(ticket):
        matrix = scipy.sparse.csr_matrix((values, columns, begin), shape)
        matrix.check_format(full_check=True)
        assert matrix.has_canonical_format and matrix.nnz == ticket.mask[name].sum()
        dense = ticket.values[f"{name}.weight"] * ticket.mask[name]
        assert np.array_equal(matrix.toarray(), dense.reshape(shape))


# ---------------------------------------------------------------------------- other people's names, types and wrappers


class Named(nn.Module):
    """The MLP or LeNet-5 with any names of its layers, in that order."""

    def __init__(self, model, names):
        super().__init__()
        for name, layer in zip(names, layers_of(model), strict=True):
            self.add_module(name, layer)


def layers_of(model):
    return list(Plain(model).children())


def sequential(model):
    """As people write it: activations, pools and a flattening between the layers."""
    parts = [nn.Flatten()] if model == "mlp" else []
    for layer in layers_of(model):
        if isinstance(layer, nn.Linear) and parts and isinstance(parts[-1], nn.AvgPool2d):
            parts.append(nn.Flatten())
        parts += [layer, nn.Tanh()] + [nn.AvgPool2d(2)] * isinstance(layer, nn.Conv2d)
    return nn.Sequential(*parts[:-1])


class Inside(nn.Module):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def split_in_two(model):
    """Features and a classifier, each a Sequential, as torchvision's networks have them."""
    layers = layers_of(model)
    half = len(layers) // 2
    return Inside(features=nn.Sequential(*layers[:half]), classifier=nn.Sequential(nn.Dropout(), *layers[half:]))


NAMES = ["input", "hidden", "deep", "deeper", "output"]
MODULES = {
    "our names": Plain,
    "a Sequential": sequential,
    "a Sequential inside": lambda model: Inside(layers=sequential(model)),
    "a ModuleList": lambda model: Inside(layers=nn.ModuleList(layers_of(model))),
    "features and classifier": split_in_two,
    "LightningModule's model": lambda model: Inside(model=Plain(model)),
    "DataParallel": lambda model: nn.DataParallel(Plain(model)),
    "DataParallel of a Sequential": lambda model: nn.DataParallel(sequential(model)),
    "DataParallel inside": lambda model: Inside(net=Inside(trunk=nn.DataParallel(sequential(model)))),
    "compiled": lambda model: torch.compile(Plain(model)),
    "DataParallel, compiled": lambda model: torch.compile(nn.DataParallel(Plain(model))),
    "compiled, DataParallel": lambda model: nn.DataParallel(torch.compile(sequential(model))),
    "a part compiled": lambda model: Named(model, NAMES[: 2 if model == "mlp" else 4] + NAMES[-1:]),
    "fc1, fc2, fc3": lambda model: Named(model, ["conv1", "conv2"] * (model != "mlp") + ["fc1", "fc2", "fc3"]),
    "names that do not sort": lambda model: Named(model, ["z", "m", "a", "y", "b"][: 3 if model == "mlp" else 5]),
    "more than ten": lambda model: Named(model, ["2", "9", "10", "11", "100"][: 3 if model == "mlp" else 5]),
}
TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def prunable(net):
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
@pytest.mark.parametrize("how", MODULES)
def test_a_state_dict_is_read_by_whatever_names(how, model):
    """Pruned by torch in every type; with biases under a mask of ones; with one layer left out; made permanent."""
    torch.manual_seed(0)
    for dtype in TYPES:
        net = MODULES[how](model).to(dtype)
        if how == "a part compiled":
            net.output = torch.compile(net.output)
        layers = prunable(net)
        prune.global_unstructured([(m, "weight") for m in layers[:-1]], prune.L1Unstructured, amount=0.8)
        for layer in layers:
            prune.identity(layer, "bias")
        found = tickets.from_bytes(save_torch(net.state_dict()))
        for layer in layers[:-1]:
            prune.remove(layer, "weight")
        for layer in layers:
            prune.remove(layer, "bias")
        permanent = tickets.from_bytes(save_torch({k: v.contiguous() for k, v in net.state_dict().items()}))
        assert found.facts == permanent.facts == {"model": model}
        assert list(found.mask) == list(ARCHITECTURES[model].weights)
        for layer, (name, mask) in zip(layers, found.mask.items(), strict=True):
            weight, bias = (p.detach().float().numpy() for p in (layer.weight, layer.bias))
            assert np.array_equal(mask, weight != 0) and np.array_equal(permanent.mask[name], mask)
            for ticket in (found, permanent):
                assert ticket.values[f"{name}.weight"].dtype == np.float32
                assert np.array_equal(ticket.values[f"{name}.weight"] * mask, weight)
                assert np.array_equal(ticket.values[f"{name}.bias"], bias)
        assert found.mask["head"].all() and not found.mask["fc1"].all()


def test_a_file_that_was_read_is_written_again_unchanged():
    """Read under other names and types, written again in our forms, and read again."""
    net = nn.DataParallel(sequential("lenet5")).to(torch.bfloat16)
    for layer in prunable(net):
        prune.random_unstructured(layer, "weight", 0.5)
    found = tickets.from_bytes(save_torch(net.state_dict()))
    for form in tickets.FORMS:
        back = tickets.from_bytes(tickets.to_bytes(found, form))
        assert back.facts == {"model": "lenet5", "sha256": back.facts["sha256"]} and same(back.mask, found.mask)


@settings(max_examples=30, deadline=None)
@given(
    prefix=st.lists(st.sampled_from(["module", "_orig_mod", "model", "net", "0", "état"]), max_size=4),
    kind=st.sampled_from([bool, np.uint8, np.int32, np.float16, np.float32, np.float64]),
    index=st.sampled_from([np.int64, np.int32, np.uint8, np.uint64]),
    form=st.sampled_from(["prune", "csr"]),
)
def test_prefixes_and_the_types_of_masks_and_indices(prefix, kind, index, form):
    ticket = made("mlp", ["random", "one weight", "random"], density=0.0003)  # few enough for the narrowest type
    tensors = load(tickets.to_bytes(ticket, form))
    for name, array in tensors.items():
        if name.endswith("mask"):
            tensors[name] = array.astype(kind)
        if name.endswith("indices") and array.max(initial=0) < 256:
            tensors[name] = array.astype(index)
    back = tickets.from_bytes(save({".".join([*prefix, name]): array for name, array in tensors.items()}))
    mask, values = expected(ticket, form)
    assert same(back.mask, mask) and same(back.values, values)


@pytest.mark.parametrize("call", ["mask", "weight_mask"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_layers_that_mask_themselves_are_read(call, prefix):
    """Their weights keep their values and their name, their mask lies beside: as many hand-written layers have it."""
    ticket = made("lenet5")
    tensors = {prefix + name: array for name, array in ticket.values.items()}
    tensors |= {f"{prefix}{name}.{call}": mask.astype(F32) for name, mask in ticket.mask.items()}
    tensors |= {f"{prefix}{name}.bias_mask": np.ones(len(mask), F32) for name, mask in ticket.mask.items()}
    back = tickets.from_bytes(save(tensors))
    mask, values = expected(ticket, "prune")
    assert same(back.mask, mask) and same(back.values, values) and back.facts == {"model": "lenet5"}


def renamed(model="mlp", **names):
    tensors = load(tickets.to_bytes(made(model), "dense"))
    return {names.get(name.partition(".")[0], name.partition(".")[0]) + name[name.index(".") :]: v
            for name, v in tensors.items()}  # fmt: skip


def state(*shapes, names=None):
    """A dense state dict of layers of those shapes."""
    out = {}
    for name, shape in zip(names or map(str, range(len(shapes))), shapes, strict=True):
        out |= {f"{name}.weight": np.ones(shape, F32), f"{name}.bias": np.ones(shape[0], F32)}
    return out


NO_MODEL = {
    "another width": (state((200, 784), (100, 200), (10, 100)), "mlp, .*fc1 \\(300, 784\\), fc2 \\(100, 300\\), head"),
    "a layer more": (state((300, 784), (100, 300), (100, 100), (10, 100)), "its tensors"),
    "LeNet-5 without padding": (
        state((6, 1, 5, 5), (16, 6, 5, 5), (120, 256), (84, 120), (10, 84)), "nearest, lenet5, .*fc1 \\(120, 400"
    ),
    "transposed": (state((784, 300), (300, 100), (100, 10)), "its tensors"),
    "numbers that fall": (renamed(fc1="4", fc2="2", head="0"), "its layers, .*'4, 2, 0': numbers must rise"),
    "numbers that fall inside": (renamed(fc1="net.1", fc2="net.0", head="head"), "'net.1, net.0, head': numbers must"),
    "no biases": ({k: v for k, v in renamed(fc1="0").items() if "bias" not in k}, "a weight and a bias of each of fc1"),
    "a batch norm's": (renamed(fc1="0") | {"1.running_mean": np.ones(300, F32)}, "its tensors"),
    "a counter's": (renamed(fc1="0") | {"steps": np.ones((), F32)}, "its tensors"),
    "a name twice": (renamed() | {"module.fc1.bias": np.ones(300, F32)}, "two of its tensors are the bias of 'fc1'"),
    "a pruned bias": (
        {k: v for k, v in renamed().items() if k != "fc1.bias"}
        | {"fc1.bias_orig": np.ones(300, F32), "fc1.bias_mask": np.eye(1, 300, dtype=F32)[0]},
        "fc1: its bias_mask prunes biases, which are never pruned here",
    ),
    "a bias mask of halves": (
        {k: v for k, v in renamed().items() if k != "fc1.bias"}
        | {"fc1.bias_orig": np.ones(300, F32), "fc1.bias_mask": np.full(300, 0.5, F32)},
        "a mask holds other values than 0 and 1",
    ),
    "weights and their originals": (renamed() | {"fc1.weight_orig": np.ones((300, 784), F32)}, "its tensors"),
    "nothing but a wrapper": ({"module": np.ones(3, F32), "_orig_mod": np.ones(3, F32)}, "its tensors"),
    "csr by other names": (
        {k.replace("fc1", "0"): v for k, v in load(tickets.to_bytes(made("mlp"), "csr")).items()}, "its tensors"
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", NO_MODEL)
def test_what_cannot_be_mapped_is_refused_in_one_line_with_the_names_that_are_expected(how):
    tensors, message = NO_MODEL[how]
    with pytest.raises(ValueError, match=message) as refused:
        tickets.from_bytes(save(tensors))
    one_line(refused.value)
    assert len(str(refused.value)) < 400


def test_reading_loads_no_torch(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save_torch({f"module.{k}": torch.from_numpy(v).bfloat16() for k, v in renamed(fc1="0").items()}))
    code = f"import sys; from lthcore import tickets; tickets.read({str(path)!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=store.ROOT)
    assert done.stdout.strip() == "False"


# ------------------------------------------------------------------------------------------------- trained and judged


@pytest.fixture(scope="module")
def study(module_folders, finish):
    """A finished study of two levels with its controls."""
    return finish(experiments.study("mlp", "smoke", overrides={"rounds": 1, "test_images": 300}))


@pytest.mark.parametrize("form", tickets.FORMS)
def test_a_ticket_that_came_back_is_trained_as_if_it_had_never_left(study, form):
    """Beside the dense network and its controls: every row that the study itself has, bit for bit."""
    unit = study.units[0]
    ticket = tickets.from_bytes(tickets.to_bytes(sweep.ticket(unit, 1), form))
    said = []
    frame = experiments.compare(ticket, "smoke", 1, said.append, test_images=300)
    wanted = experiments.finished(study)
    wanted = wanted[wanted["arm"] != "ticket_spared"]
    assert len(frame) == len(wanted) > 100
    keys = ["arm", "level", "step", "split", "metric"]
    one, other = (f.sort_values(keys, kind="stable").reset_index(drop=True) for f in (frame, wanted))
    assert one.astype(object).equals(other[one.columns].astype(object))  # categories that no row has may differ
    assert [line.split(":")[0] for line in said] == ["dense r0", "ticket r0", "random_reinit r0", "random_mask r0"]


def test_a_mask_from_outside_is_given_to_any_unit(study):
    """A unit's own data, order and recipe under another's mask, with its own values or the ticket's."""
    ticket, unit = tickets.from_bytes(tickets.to_bytes(made("mlp", ["random"], density=0.1), "csr")), study.units[0]
    mask, values = ({k: torch.from_numpy(v) for k, v in part.items()} for part in (ticket.mask, ticket.values))
    splits = {"full": data.split(unit.config, "full", 0)}
    usual, given = (train_and_prune(unit, 1, mask, splits.get, values=start) for start in (None, values))
    theta0 = lottery.starting_values(unit, 1, None)[0]
    for result, start in ((usual, theta0), (given, values)):
        assert all(torch.equal(result.start[k], v) for k, v in start.items())
        assert all((result.weights[f"{name}.weight"][~m] == 0).all() for name, m in mask.items())
        assert all(torch.equal(result.mask[name], m) for name, m in mask.items())
    frame = experiments.compare(ticket, "smoke", 1, lambda line: None, test_images=300, controls=0)
    rows = frame[frame["level"] == 1][store.ROWS].itertuples(index=False, name=None)
    assert list(rows) == given.rows != usual.rows


@pytest.mark.parametrize("model", ["mlp_13_10", "lenet5_2_4_25_18"])
def test_a_ticket_of_another_size_is_compared_with_its_own_kind(model):
    frame = experiments.compare(made(model), "smoke", 1, lambda line: None, max_steps=3, test_images=100)
    assert set(frame["model"]) == {model} and set(frame["arm"]) == {"ticket", "random_reinit", "random_mask"}


def test_a_rewound_ticket_is_trained_from_its_step(finish, folders):
    overrides = {"rounds": 1, "test_images": 300, "rewind_step": 5}
    study = experiments.study("mlp", "smoke", controls=False, overrides=overrides)
    finish(study)
    unit = study.units[0]
    sweep.keep_weights(unit, 1)
    ticket = tickets.from_bytes(tickets.to_bytes(sweep.ticket(unit, 1), "prune"))
    frame = experiments.compare(
        ticket, "smoke", 1, lambda line: None, test_images=300, rewind_step=ticket.facts["rewind_step"], controls=0
    )
    rows = frame[frame["level"] == 1][store.ROWS].reset_index(drop=True)
    assert rows.equals(store.find_level(unit, 1).rows()) and rows["step"].min() == 10


def test_a_setting_that_is_none_is_refused_before_anything_is_trained(study):
    with pytest.raises(ValueError, match=r"^lr = 0: must be a number in \(0, 10\]$"):
        experiments.compare(made("mlp"), lr=0)


@pytest.mark.parametrize(
    "setting",
    [{"rounds": 3}, {"prune_rate": 0.9}, {"criterion": "random"}, {"rewind": "final"}, {"experiment": "task1"}],
    ids=str,
)
def test_a_setting_that_chooses_a_mask_is_refused_for_a_ticket_that_has_one(setting):
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f"^{name} = {value!r}: must be left out, since the ticket's mask is given$"):
        experiments.compare(made("mlp"), "smoke", 1, **setting)


def _changed(part, name, change):
    ticket = made("mlp")
    values = dict(getattr(ticket, part))
    changed = change(values.pop(name))
    return ticket._replace(**{part: values if changed is None else values | {name: changed}})


@pytest.mark.parametrize(
    ("ticket", "message"),
    [
        (_changed("mask", "head", lambda m: None), "ticket.mask: head is missing, must be (10, 100)"),
        (_changed("mask", "fc2", lambda m: m.T), "ticket.mask: fc2 is (300, 100), must be (100, 300)"),
        (_changed("values", "fc1.bias", lambda v: v[:5]), "ticket.values: fc1.bias is (5,), must be (300,)"),
        ("ticket.safetensors", "ticket = 'ticket.safetensors': must be a ticket, as lthcore.tickets.read(path) gives"),
    ],
)
def test_what_is_no_ticket_of_its_model_is_refused_in_one_line(ticket, message):
    with pytest.raises(ValueError) as caught:
        experiments.compare(ticket, "smoke", 1)
    assert str(caught.value).startswith(message) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_ticket_of_another_precision_is_trained(dtype):
    ticket = made("mlp")
    ticket = ticket._replace(values={name: torch.tensor(v).to(dtype) for name, v in ticket.values.items()})
    frame = experiments.compare(ticket, "smoke", 1, lambda line: None, max_steps=3, test_images=100, controls=0)
    assert set(frame["level"]) == {0, 1}


def test_an_empty_ticket_answers_one_class():
    frame = experiments.compare(made("mlp", ["nothing"]), "smoke", 1, lambda line: None, test_images=300, controls=0)
    answered = frame[(frame["metric"] == "answered_classes") & (frame["level"] == 1)]
    assert answered["value"].item() == 1 and answered["density"].item() == 0


# --------------------------------------------------------------------------------------------- what is none is refused


def with_header(content, change):
    """The file with its JSON header changed."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    text = json.dumps(change(header) or header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def facts(text):
    """A change of a header: other facts."""
    return lambda header: header["__metadata__"].update(lottery_ticket=text)


def entry(tensor, **values):
    """A change of a header: another type, shape or place of a tensor."""
    return lambda header: header[tensor].update(values)


class Evil:
    """Unpickled, it stops the tests."""

    def __reduce__(self):
        return pytest.exit, ("a pickle was executed",)


def as_torch_saves(thing):
    out = io.BytesIO()
    torch.save(thing, out)
    return out.getvalue()


HEAD = "not a ticket: it is not a safetensors file with a header of a ticket's size"
DAMAGE = "not a ticket: it does not have the sum that its facts give: it is damaged"
REFUSED = {
    "empty": (lambda c: b"", HEAD),
    "short": (lambda c: c[:7], HEAD),
    "cut": (lambda c: c[:-1], "incomplete|MetadataIncomplete|not fully covered"),
    "longer": (lambda c: c + b"x", "incomplete|MetadataIncomplete|not fully covered"),
    "a header without end": (lambda c: (10**12).to_bytes(8, "little") + c[8:], HEAD),
    "a header of negative size": (lambda c: b"\xff" * 8 + c[8:], HEAD),
    "no json": (lambda c: (4).to_bytes(8, "little") + b"\xff\xfe\x00\x01" + c, "header"),
    "nested": (lambda c: (9000).to_bytes(8, "little") + b"[" * 9000, "header"),
    "a list": (lambda c: (2).to_bytes(8, "little") + b"[]", "header"),
    "a text": (lambda c: (3).to_bytes(8, "little") + b'"a"', "header"),
    "no tensors": (lambda c: (2).to_bytes(8, "little") + b"{}", "its tensors"),
    "pickle": (lambda c: pickle.dumps(Evil()), HEAD),
    "old pickle": (lambda c: pickle.dumps(Evil(), 0), HEAD),
    "a .pt": (lambda c: as_torch_saves({"fc1.weight": Evil()}), HEAD),
    "a zip": (lambda c: b"PK\x03\x04" + c, HEAD),
    "a flipped bit": (lambda c: c[:-50] + bytes([c[-50] ^ 4]) + c[-49:], DAMAGE),
    "a shape": (lambda c: with_header(c, entry("head.bias", shape=[2**40])), "deserializing"),
    "a place": (lambda c: with_header(c, entry("head.bias", data_offsets=[0, 2**50])), "deserializing"),
    "a type": (lambda c: with_header(c, entry("head.bias", dtype="I32")), "head: bias is int32, must be of a floating"),
    "a type numpy lacks": (
        lambda c: with_header(c, entry("head.bias", dtype="F8_E4M3", shape=[40])),
        "not a ticket: head.bias is of the type F8_E4M3, must be of one of F32, F64, F16, BF16, BOOL, U8, ",
    ),
    "another model's facts": (lambda c: with_header(c, facts('{"model": "mlp"}')), DAMAGE),
    "no sum": (lambda c: with_header(c, facts('{"model": "lenet5"}')), DAMAGE),
    "an unknown model": (lambda c: with_header(c, facts('{"model": ["resnet"]}')), DAMAGE),
    "facts that are a list": (lambda c: with_header(c, facts("[]")), DAMAGE),
    "facts that are no json": (lambda c: with_header(c, facts("{")), "not a ticket: "),
    "facts without end": (lambda c: with_header(c, facts("[" * 9000)), "not a ticket: "),
    "foreign": (
        lambda c: save({"0.weight": np.zeros((300, 784), np.float32), "a\nb": np.zeros(300, np.float32)}),
        r"not a ticket: its tensors \('0.weight, a\\nb'\) are those of no form \(ticket, prune, dense, csr\) of mlp, .*"
        r"nearest, mlp, has a weight and a bias of each of fc1 \(300, 784\), fc2 \(100, 300\), head \(10, 100\)$",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", tickets.FORMS)
@pytest.mark.parametrize("how", REFUSED)
def test_what_is_no_ticket_is_refused_in_one_line(how, form, tmp_path):
    change, message = REFUSED[how]
    path = tmp_path / "x.safetensors"
    path.write_bytes(change(tickets.to_bytes(made("lenet5"), form)))
    with pytest.raises(ValueError, match=r"\Anot a ticket: .+\Z") as refused:
        tickets.from_bytes(path.read_bytes())
    assert re.search(message, str(refused.value)) and len(str(refused.value)) < 400
    one_line(refused.value)
    with pytest.raises(ValueError) as named:
        tickets.read(path)
    assert str(named.value) == f"{path}: {refused.value}"


def test_a_ticket_without_its_facts_is_none_and_a_plain_model_needs_no_facts():
    for form in tickets.FORMS:
        content = with_header(tickets.to_bytes(made("lenet5"), form), lambda h: h.pop("__metadata__") and None)
        if form == "ticket":
            with pytest.raises(ValueError, match=r"^not a ticket: its header has no facts of a ticket of this study$"):
                tickets.from_bytes(content)
        else:
            assert tickets.from_bytes(content).facts == {"model": "lenet5"}


def test_no_such_file(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(OSError) as error:
            tickets.read(path)
        one_line(error.value)


def foreign_model(form, model="lenet5", **changed):
    """A file of that form without facts, some of whose tensors are others; None takes one out."""
    tensors = load(tickets.to_bytes(made(model), form)) | changed
    return save({name: v for name, v in tensors.items() if v is not None})


def one_weight(begin, columns):
    """The last layer's CSR parts."""
    parts = {"crow_indices": np.array(begin), "col_indices": np.array(columns), "values": np.ones(len(columns), F32)}
    return {f"head.{name}": part for name, part in parts.items()}


WRONG = {
    "a layer too few": ("dense", {"head.weight": None, "head.bias": None}, "its tensors"),
    "a name too many": ("dense", {"fc3.weight": np.zeros(3, F32)}, "its tensors"),
    "another name": ("prune", {"fc1.weight_mask": None, "fc1.mask": np.zeros((120, 400), F32)}, "its tensors"),
    "another shape": ("dense", {"fc1.weight": np.zeros((400, 120), F32)}, r"fc1: mask, weight and bias are \(400, 1"),
    "flattened": ("dense", {"conv1.weight": np.zeros((6, 25), F32)}, r"conv1: .+, must be for \(6, 1, 5, 5\)"),
    "a scalar": ("dense", {"conv1.weight": np.array(1, F32)}, r"conv1: .+, must be for \(6, 1, 5, 5\)"),
    "a bias of another shape": ("csr", {"fc1.bias": np.zeros((120, 1), F32)}, "fc1: mask, weight and bias"),
    "a mask of another shape": ("prune", {"fc1.weight_mask": np.ones((120, 1), F32)}, "fc1: mask, weight and bias"),
    "whole numbers": ("dense", {"fc1.weight": np.zeros((120, 400), int)}, "fc1: weight is int64, must be of a"),
    "quantised": ("prune", {"fc1.weight_orig": np.zeros((120, 400), np.int8)}, "fc1: weight_orig is int8, must be"),
    "too great": ("dense", {"fc1.weight": np.full((120, 400), 1e300)}, "fc1: a value is not finite"),
    "a mask of halves": ("prune", {"fc1.weight_mask": np.full((120, 400), 0.5, F32)}, "fc1: a mask holds other values"),
    "a mask of nan": ("prune", {"fc1.weight_mask": np.full((120, 400), np.nan, F32)}, "fc1: a mask holds other values"),
    "nan": ("dense", {"fc1.weight": np.full((120, 400), np.nan, F32)}, "fc1: a value is not finite"),
    "infinite where it is pruned": ("prune", {"fc1.weight_orig": np.full((120, 400), np.inf, F32)}, "is not finite"),
    "an infinite bias": ("csr", {"head.bias": np.full(10, -np.inf, F32)}, "head: a value is not finite"),
    "broken indices": ("csr", {"head.crow_indices": np.zeros(11, F32)}, "crow_indices is float32, must be of an int"),
    "rows too few": ("csr", {"head.crow_indices": np.zeros(10, np.int64)}, "head: its indices .+ not those of 10 rows"),
    "no rows": ("csr", {"head.crow_indices": np.zeros((), np.int64)}, "head: its indices .+ not those of 10 rows"),
    "values too many": ("csr", {"head.values": np.zeros(841, F32)}, "head: its indices .+ not those of 10 rows"),
    "a matrix of columns": (
        "csr", {"head.col_indices": np.zeros((2, 2), np.int64), "head.values": np.zeros((2, 2), F32)},
        "head: its indices .+ not those of 10 rows",
    ),
    "a column too many": ("csr", one_weight([0, *[1] * 10], [84]), r"head: one of its col_indices is not in 0\.\.83"),
    "a column before the first": ("csr", one_weight([0, 0, *[1] * 9], [-1]), "head: one of its col_indices is not in"),
    "a first row that begins late": ("csr", one_weight([1] * 11, [3]), "head: its crow_indices do not rise"),
    "a last row that ends early": ("csr", one_weight([0] * 11, [3]), "head: its crow_indices do not rise"),
    "rows without end": ("csr", {"head.crow_indices": np.array([0, *[2**62] * 10])}, "crow_indices do not rise"),
    "rows that wrap around": ("csr", {"head.crow_indices": np.array([0, 2**63 - 1, -(2**63), *[0] * 8])},
                              "head: its crow_indices do not rise"),
}  # fmt: skip


@pytest.mark.parametrize("how", WRONG)
def test_a_foreign_model_that_does_not_fit_is_refused_in_one_line(how):
    form, changed, message = WRONG[how]
    with pytest.raises(ValueError, match=message) as refused:
        tickets.from_bytes(foreign_model(form, **changed))
    one_line(refused.value)
    assert len(str(refused.value)) < 400


@FUZZ
@given(
    begin=st.lists(st.integers(-1, 12) | st.sampled_from([2**62, -(2**63)]), min_size=10, max_size=10),
    columns=st.lists(st.integers(-1, 84) | st.sampled_from([2**62, -(2**63)]), max_size=6),
    kind=st.sampled_from(["a matrix", "unsorted or twice", "any columns", "an odd row"]),
)
def test_csr_indices_are_taken_where_torch_takes_them(begin, columns, kind):
    """The ten rows of the last layer; torch's own check of the invariants says which indices are a matrix."""
    if kind != "any columns":
        columns = [c % 84 for c in columns]
    if kind in ("a matrix", "an odd row"):
        columns = sorted(set(columns))
    odd = begin[0]
    begin = [0, *sorted(min(abs(b), len(columns)) for b in begin[1:]), len(columns)]
    if kind == "an odd row":
        begin[abs(odd) % 11] = odd
    begin, columns = np.array(begin, np.int64), np.array(columns, np.int64)
    values = np.arange(1, len(columns) + 1, dtype=F32)
    try:
        wanted = torch.sparse_csr_tensor(
            *map(torch.from_numpy, (begin, columns, values)), (10, 84), check_invariants=True
        ).to_dense()
    except RuntimeError:
        wanted = None
    parts = {"head.crow_indices": begin, "head.col_indices": columns, "head.values": values}
    content = save({**CSR, **parts})
    if wanted is None:
        with pytest.raises(ValueError, match=r"^not a ticket: head: .*(crow|col)_indices") as refused:
            tickets.from_bytes(content)
        one_line(refused.value)
    else:
        found = tickets.from_bytes(content)
        assert np.array_equal(found.values["head.weight"], wanted.numpy())
        assert found.mask["head"].sum() == len(values)


CSR = load(tickets.to_bytes(made("lenet5", ["one weight"]), "csr"))
SMALL = {form: tickets.to_bytes(made("lenet5", ["random", "nothing"], density=0.02), form) for form in tickets.FORMS}


@FUZZ
@given(change=changes(), form=st.sampled_from(list(tickets.FORMS)))
def test_a_changed_file_gives_what_was_written_or_one_line(change, form):
    content = change(SMALL[form])
    try:
        found = tickets.from_bytes(content)
    except ValueError as error:
        return one_line(error)
    written = tickets.from_bytes(SMALL[form])
    if form != "ticket" and found.facts == {"model": "lenet5"}:  # its facts are lost, and its checksum with them
        header = slice(8 + int.from_bytes(SMALL[form][:8], "little"))
        assert content[header] != SMALL[form][header]
        written = tickets.from_bytes(save(load(content)))  # then it is read as anybody's state dict is
    assert same(found.mask, written.mask) and same(found.values, written.values) and found.facts == written.facts


@FUZZ
@given(replace=replacements(), form=st.sampled_from(list(tickets.FORMS)), inside=st.booleans())
def test_a_file_with_another_header(replace, form, inside):
    size = int.from_bytes(SMALL[form][:8], "little")
    header = json.loads(SMALL[form][8 : 8 + size])
    if inside:
        text = header["__metadata__"]["lottery_ticket"]
        header["__metadata__"]["lottery_ticket"] = json.dumps(replace(json.loads(text)))
    else:
        header = replace(header)
    text = json.dumps(header).encode()
    try:
        found = tickets.from_bytes(struct.pack("<Q", len(text)) + text + SMALL[form][8 + size :])
    except ValueError as error:
        return one_line(error)
    written = tickets.from_bytes(SMALL[form])
    assert found.facts in (written.facts, {"model": "lenet5"})
    if found.facts == written.facts:
        assert same(found.mask, written.mask) and same(found.values, written.values)


# ----------------------------------------------------------------------------------------------------------- the words


def lines(name):
    """The Python lines of the document's section, or of the notebook's cell, of that title."""
    text = (store.ROOT / name).read_text()
    if name.endswith(".ipynb"):
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    section = text.partition("## Exporting a ticket\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.S)
    return block


@pytest.mark.parametrize("name", ["notebooks/README.md", "notebooks/05_explorer.ipynb"])
def test_the_lines_that_we_show_run(name, tmp_path, monkeypatch, capsys):
    """As they stand, from the committed archive, on the smallest scale."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LTH_ARCHIVE", str(store.ROOT / "figures/archive"))
    monkeypatch.setattr(experiments.compare, "__defaults__", ("smoke", 2, print))
    unit = experiments.study("mlp", "report").units[0]
    scope = {"page": SimpleNamespace(chosen=(unit, 7)), "experiments": experiments}
    *first, last = lines(name).strip().splitlines()
    exec("\n".join(first), scope)
    shown = eval(last, scope)
    assert shown.shape == (2, 3) and all("±" in text for text in shown.loc[1])
    assert capsys.readouterr().out.count("test accuracy") == 8
    ticket = tickets.read(tmp_path / "ticket.safetensors")
    assert ticket.facts["unit"] == unit.key and same(ticket.mask, sweep.mask_at(unit, 7))
