"""A ticket as a file, in four forms, and back. No torch, and nothing that is read can execute anything.

All are safetensors with the ticket's facts and the SHA-256 of facts and tensors in their metadata; ``fc1`` stands for
every layer, and ``fc1.bias`` is in all of them:

========== ========================================================= ================================================
form       tensors of a layer                                        what is lost
========== ========================================================= ================================================
``ticket`` ``mask.fc1`` (bool), ``fc1.weight``                       nothing
``prune``  ``fc1.weight_orig``, ``fc1.weight_mask``: the state of a  nothing
           module under ``torch.nn.utils.prune``
``dense``  ``fc1.weight``, zero where it is pruned: the state of a   the values of pruned weights; a surviving weight
           plain module                                              that is exactly zero comes back as pruned
``csr``    ``fc1.crow_indices``, ``fc1.col_indices``,                the values of pruned weights; a surviving zero is
           ``fc1.values``, as `torch.sparse_csr_tensor` takes them   stored, and stays
========== ========================================================= ================================================

Values are float32, indices int64. A convolution (out, in, kh, kw) is flattened to (out, in kh kw), since CSR is a
matrix: so it multiplies what `torch.nn.functional.unfold` makes of the images, and no layer's mask is left behind.

In plain PyTorch, without this package::

    state = safetensors.torch.load_file("ticket.safetensors")      # of the form `prune`
    for name in ("fc1", "fc2", "head"):
        prune.identity(net.get_submodule(name), "weight")
    net.load_state_dict(state)
    torch.save(state, "ticket.pt")                                 # a pickle, for who wants one: we read none

A file of the last three forms need not come from here: any state dict of such a model is read, saved by
``safetensors.torch.save_file``. It has no facts but its model, and without a sum a damaged value is not noticed. What
is common is mapped: ``module.``, ``_orig_mod.`` and whatever else all names begin with; other names of the layers, such
as a Sequential's numbers, by the shapes of their weights; half, bfloat16 and double precision; masks of any type; a
layer that is pruned beside one that is not; a bias with a mask of ones; a layer that masks itself, with ``fc1.mask`` or
``fc1.weight_mask`` beside ``fc1.weight``.
"""

import hashlib
import json
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from safetensors import deserialize

from .disk.files import write as write_file
from .disk.tensors import DAMAGED, read_file, save_tensors
from .methods import one_of
from .schedule import ARCHITECTURES

HEADER = 20_000  # bytes: a ticket's header is smaller
MESSAGE = 500  # characters of an error, which may quote the file
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # DataParallel, compile, ...
# safetensors' names of types, and numpy's; bfloat16 is read as the bits that it is made of
TYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "<u2", "BOOL": "?", "U8": "<u1", "I8": "<i1", "U16": "<u2"}
TYPES |= {"I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8", "I64": "<i8"}


class Ticket(NamedTuple):
    """A mask, the values that its survivors start from, and facts about both."""

    facts: dict  # plain values; "model" is a name of ``ARCHITECTURES``
    mask: dict  # layer name -> bool array, True = kept
    values: dict  # parameter name -> float32 array, at the rewind step


class Form(NamedTuple):
    """How a file stores a layer's mask and weight."""

    parts: dict  # name of a tensor, {} being the layer -> the type that it is read as
    pack: callable  # (mask, weight) -> its tensors, in that order
    unpack: callable  # (its tensors, shape of the weight) -> (mask, weight)


def _bits(mask):
    mask = mask.view(np.uint8) if mask.dtype == np.bool_ else mask  # a file's byte may be neither 0 nor 1
    if ((mask != 0) & (mask != 1)).any():
        raise ValueError("a mask holds other values than 0 and 1")
    return mask == 1


def _compressed(mask, weight):
    """A matrix in compressed sparse rows: where each row begins, the columns, the values."""
    rows = mask.reshape(len(mask), -1)
    return np.append(0, rows.sum(1).cumsum()), rows.nonzero()[1], weight[mask]


def _uncompressed(begin, columns, values, shape):
    out, into = shape[0], int(np.prod(shape[1:]))
    if begin.shape != (out + 1,) or columns.ndim != 1 or columns.shape != values.shape:
        raise ValueError(f"its indices and values are not those of {out} rows")
    if begin[0] != 0 or begin[-1] != len(columns) or (begin[1:] < begin[:-1]).any():
        raise ValueError(f"its crow_indices do not rise from 0 to the {len(columns)} values that there are")
    if ((columns < 0) | (columns >= into)).any():
        raise ValueError(f"one of its col_indices is not in 0..{into - 1}")
    at = np.repeat(np.arange(out) * into, np.diff(begin)) + columns
    if (at[1:] <= at[:-1]).any():
        raise ValueError("its col_indices do not rise within every row")
    mask, weight = np.zeros(out * into, bool), np.zeros(out * into, np.float32)
    mask[at], weight[at] = True, values
    return mask.reshape(shape), weight.reshape(shape)


FORMS = {
    "ticket": Form(
        {"mask.{}": np.bool_, "{}.weight": np.float32},
        lambda mask, weight: (mask, weight),
        lambda mask, weight, shape: (mask, weight),
    ),
    "prune": Form(
        {"{}.weight_orig": np.float32, "{}.weight_mask": np.bool_},
        lambda mask, weight: (weight, mask.astype(np.float32)),
        lambda weight, mask, shape: (mask, weight),
    ),
    "dense": Form(
        {"{}.weight": np.float32},
        lambda mask, weight: (np.where(mask, weight, np.float32(0)),),
        lambda weight, shape: (weight != 0, weight),
    ),
    "csr": Form(
        {"{}.crow_indices": np.int64, "{}.col_indices": np.int64, "{}.values": np.float32}, _compressed, _uncompressed
    ),
}


def to_bytes(ticket, form="ticket"):
    """A ticket as the bytes of a file.

    Parameters
    ----------
    ticket : Ticket
    form : str
        One of ``FORMS``.

    Raises
    ------
    ValueError
        If there is no such form.
    """
    if form not in FORMS:
        raise ValueError(f"form = {form!r}: {one_of(form, FORMS)}")
    tensors = {f"{name}.bias": ticket.values[f"{name}.bias"] for name in ticket.mask}
    for name, mask in ticket.mask.items():
        arrays = FORMS[form].pack(mask, ticket.values[f"{name}.weight"])
        tensors |= {part.format(name): a for part, a in zip(FORMS[form].parts, arrays, strict=True)}
    facts = {**ticket.facts, "sha256": _sum(tensors, ticket.facts)}
    return save_tensors(tensors, {"lottery_ticket": json.dumps(facts, sort_keys=True)})


def from_bytes(content):
    """The ticket in the bytes of a file of any form.

    Raises
    ------
    ValueError
        One line that says why it is no ticket.
    """
    try:
        return _ticket(content)
    except DAMAGED as error:
        raise ValueError(f"not a ticket: {' '.join(str(error).split())[:MESSAGE]}") from None


def write(ticket, path, form="ticket"):
    """Write a ticket to a file; `form` as in :func:`to_bytes`."""
    write_file(path, to_bytes(ticket, form))


def read(path):
    """The ticket in a file of any form: :class:`Ticket`.

    Raises
    ------
    ValueError
        One line that names the file and says why it is no ticket.
    OSError
        If there is no such file.
    """
    content = read_file(path)
    try:
        return from_bytes(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _ticket(content):
    size = int.from_bytes(content[:8], "little")
    if not 2 <= size <= min(HEADER, len(content) - 8):
        raise ValueError(
            "it is not a safetensors file with a header of a ticket's size "
            "(a pickle, as .pt files are, is never loaded: save its state by safetensors.torch.save_file)"
        )
    tensors = _tensors(content)
    layers = _layers(tensors)
    model, names = _model(layers) or _refuse(tensors, layers)
    forms = {name: _form(layers[names[name]]) or _refuse(tensors, layers) for name in names}
    metadata = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    if "lottery_ticket" in metadata:
        facts = json.loads(metadata["lottery_ticket"])
        if not isinstance(facts, dict) or (facts.get("model"), facts.get("sha256")) != (model, _sum(tensors, facts)):
            raise ValueError("it does not have the sum that its facts give: it is damaged")
    elif FORMS["ticket"] in forms.values():  # a form of ours alone
        raise ValueError("its header has no facts of a ticket of this study")
    else:
        facts = {"model": model}
    mask, values = {}, {}
    for name, shape in ARCHITECTURES[model].weights.items():
        try:
            found = _layer(shape, forms[name], layers[names[name]])
        except ValueError as error:
            raise ValueError(f"{names[name]}: {error}") from None
        mask[name], values[f"{name}.weight"], values[f"{name}.bias"] = found
    return Ticket(facts, mask, values)


def _tensors(content):
    """The tensors of a file by name: arrays, of bfloat16 as float32, which numpy lacks."""
    out = {}
    for name, tensor in deserialize(bytes(content)):
        if tensor["dtype"] not in TYPES:
            raise ValueError(f"{name} is of the type {tensor['dtype']}, must be of one of {', '.join(TYPES)}")
        array = np.frombuffer(tensor["data"], TYPES[tensor["dtype"]])
        if tensor["dtype"] == "BF16":  # the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        out[name] = array.reshape(tensor["shape"])
    return out


def _layers(tensors):
    """The tensors by layer and part: dict of dict of array.

    What a wrapper puts into a name, and what all names begin with, is left out; a bias under `torch.nn.utils.prune` is
    a plain one where nothing of it is pruned.
    """
    paths = {name: [word for word in name.split(".") if word not in WRAPPERS] for name in tensors}
    while paths and min(map(len, paths.values())) > 2 and len({path[0] for path in paths.values()}) == 1:
        paths = {name: path[1:] for name, path in paths.items()}
    layers = {}
    for name, path in paths.items():
        *layer, part = path or [name]
        if layer == ["mask"]:  # a ticket's own names
            layer, part = [part], "mask"
        elif part == "mask":
            part = "own mask"
        parts = layers.setdefault(".".join(layer), {})
        if part in parts:
            raise ValueError(f"two of its tensors are the {part} of {'.'.join(layer)!r}")
        parts[part] = tensors[name]
    for layer, parts in layers.items():
        for mask, name in (("own mask", "weight"), ("weight_mask", "weight"), ("bias_mask", "bias")):
            if {mask, name} <= set(parts) and f"{name}_orig" not in parts:  # the layer masks itself
                parts |= {f"{name}_mask": parts.pop(mask), f"{name}_orig": parts.pop(name)}
        if {"bias_orig", "bias_mask"} <= set(parts):
            if not _bits(parts.pop("bias_mask")).all():
                raise ValueError(f"{layer}: its bias_mask prunes biases, which are never pruned here")
            parts["bias"] = parts.pop("bias_orig")
    return layers


def _form(parts):
    """The form that a layer of these parts has: Form, or None."""
    return next((form for form in FORMS.values() if {*_parts(form), "bias"} == set(parts)), None)


def _parts(form):
    """What a form calls the parts of a layer: list of str."""
    return [part.replace("{}", "").strip(".") for part in form.parts]


def _shape(parts):
    """The shape of a layer's weight, where its form tells: tuple of int, else empty."""
    weight = parts.get("weight", parts.get("weight_orig"))
    return () if weight is None else weight.shape


def _model(layers):
    """The model that has these layers, and what they are called: str and dict, its layer -> theirs; or None.

    By their names: of models with the same, also of other sizes, the one whose biases fit better. Else by the shapes
    of their weights, of which no model has one twice; numbers, as in a Sequential, must rise from the input to the
    output.
    """
    named = [model for model, known in ARCHITECTURES.items() if set(known.weights) == set(layers)]
    named += _of_other_sizes(layers)
    if named:

        def biases(model):
            shapes = ARCHITECTURES[model].weights.items()
            return sum(layers[name].get("bias", np.zeros(())).shape == shape[:1] for name, shape in shapes)

        return max(named, key=biases), {name: name for name in layers}
    shapes = {_shape(parts): layer for layer, parts in layers.items()}
    for model, known in ARCHITECTURES.items():
        if len(shapes) == len(layers) and set(known.weights.values()) == set(shapes):
            names = {name: shapes[shape] for name, shape in known.weights.items()}
            _check_numbers(list(names.values()))
            return model, names
    return None


def _of_other_sizes(layers):
    """The name of the model with these layers, where it is an MLP or a LeNet-5 of other sizes: list of str."""
    hidden = {"mlp": [f"fc{i}" for i in range(1, len(layers))], "lenet5": list(ARCHITECTURES["lenet5"].weights)[:-1]}
    biases = {name: parts["bias"].shape for name, parts in layers.items() if "bias" in parts}
    if not all(len(shape) == 1 for shape in biases.values()):
        return []
    kinds = [(kind, names) for kind, names in hidden.items() if {*names, "head"} == set(biases)]
    found = ["_".join([kind, *(str(biases[layer][0]) for layer in names)]) for kind, names in kinds]
    return [name for name in found if name in ARCHITECTURES]


def _check_numbers(names):
    """Refuse layers from the input to the output whose numbers, within one Sequential, do not rise."""
    split = [name.rpartition(".") for name in names]
    for (before, _, one), (parent, _, other) in pairwise(split):
        if before == parent and one.isdecimal() and other.isdecimal() and int(one) >= int(other):
            raise ValueError(f"its layers, in the order of their shapes, are {', '.join(names)!r}: numbers must rise")


def _refuse(tensors, layers):
    """Report the tensors' names and shapes, and those of the model that is closest."""
    shapes = [_shape(parts) for parts in layers.values()]

    def likeness(model):
        wanted = ARCHITECTURES[model].weights.values()
        return sum(shape in shapes for shape in wanted), -abs(len(wanted) - len(layers))

    nearest = max(ARCHITECTURES, key=likeness)
    wanted = ", ".join(f"{name} {shape}" for name, shape in ARCHITECTURES[nearest].weights.items())
    raise ValueError(
        f"its tensors ({', '.join(sorted(tensors))[:60]!r}) are those of no form ({', '.join(FORMS)}) of "
        f"{', '.join(ARCHITECTURES)}; the nearest, {nearest}, has a weight and a bias of each of {wanted}"
    )


def _layer(shape, form, parts):
    """A layer's mask, weight and bias, of the right shapes and finite, the values as float32: three arrays."""
    kinds = dict(zip(_parts(form), form.parts.values(), strict=True))
    given = {part: _converted(part, parts[part], kind) for part, kind in {**kinds, "bias": np.float32}.items()}
    bias = given.pop("bias")
    mask, weight = form.unpack(*given.values(), shape)
    if not mask.shape == weight.shape == shape or bias.shape != shape[:1]:
        raise ValueError(
            f"mask, weight and bias are {mask.shape}, {weight.shape} and {bias.shape}, must be for {shape}"
        )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ValueError("a value is not finite")
    return mask, weight, bias


def _converted(part, array, kind):
    """An array as the type that a form has there: masks from anything that holds 0 and 1, numbers from like types."""
    if kind == np.bool_:
        return _bits(array)
    like, text = (np.floating, "a floating") if kind == np.float32 else (np.integer, "an integer")
    if not np.issubdtype(array.dtype, like):
        raise ValueError(f"{part} is {array.dtype}, must be of {text} type")
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        return array.astype(kind)


def _sum(tensors, facts):
    digest = hashlib.sha256(json.dumps({**facts, "sha256": None}, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()
