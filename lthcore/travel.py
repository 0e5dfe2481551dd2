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

A file of the last three forms need not come from here: any state dict with these names and shapes is read, saved by
``safetensors.torch.save_file``. It has no facts but its model, and without a sum a damaged value is not noticed.
"""

import hashlib
import json
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load as load_tensors

from .config import ARCHITECTURES
from .files import write as write_file
from .store import DAMAGED, read_file, save_tensors

HEADER = 20_000  # bytes: a ticket's header is smaller


class Ticket(NamedTuple):
    """A mask, the values that its survivors start from, and facts about both."""

    facts: dict  # plain values; "model" is a name of ``ARCHITECTURES``
    mask: dict  # layer name -> bool array, True = kept
    values: dict  # parameter name -> float32 array, at the rewind step


class Form(NamedTuple):
    """How a layer's mask and weight lie in a file."""

    parts: dict  # name of a tensor, {} being the layer -> its type
    pack: callable  # (mask, weight) -> its tensors, in that order
    unpack: callable  # (its tensors, shape of the weight) -> (mask, weight)


def _bits(mask):
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
        lambda mask, weight, shape: (_bits(mask.view(np.uint8)), weight),
    ),
    "prune": Form(
        {"{}.weight_orig": np.float32, "{}.weight_mask": np.float32},
        lambda mask, weight: (weight, mask.astype(np.float32)),
        lambda weight, mask, shape: (_bits(mask), weight),
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
        raise ValueError(f"form = {form!r}: must be one of {', '.join(map(repr, FORMS))}")
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
        raise ValueError(f"not a ticket: {' '.join(str(error).split())[:180]}") from None


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
    try:
        tensors = load_tensors(bytes(content))
    except KeyError as error:
        raise ValueError(f"its tensors are of a type that numpy does not know, {error}") from None
    model, form = _kind(tensors)
    metadata = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    if "lottery_ticket" in metadata:
        facts = json.loads(metadata["lottery_ticket"])
        if not isinstance(facts, dict) or (facts.get("model"), facts.get("sha256")) != (model, _sum(tensors, facts)):
            raise ValueError("it does not have the sum that its facts give: it is damaged")
    elif form == "ticket":  # a form of ours alone
        raise ValueError("its header has no facts of a ticket of this study")
    else:
        facts = {"model": model}
    mask, values = {}, {}
    for name, shape in ARCHITECTURES[model].weights.items():
        try:
            mask[name], values[f"{name}.weight"], values[f"{name}.bias"] = _layer(name, shape, FORMS[form], tensors)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return Ticket(facts, mask, values)


def _kind(tensors):
    """The model and the form whose names the tensors have, of two models the one whose biases fit better: two str."""
    kinds = {(model, form): (*FORMS[form].parts, "{}.bias") for model in ARCHITECTURES for form in FORMS}
    fitting = [
        kind
        for kind, parts in kinds.items()
        if set(tensors) == {part.format(name) for part in parts for name in ARCHITECTURES[kind[0]].weights}
    ]
    if not fitting:
        names = ", ".join(sorted(tensors))[:60]
        forms, models = ", ".join(FORMS), ", ".join(ARCHITECTURES)
        raise ValueError(f"its tensors ({names!r}) are those of no form ({forms}) of {models}")

    def biases(kind):
        shapes = ARCHITECTURES[kind[0]].weights.items()
        return sum(tensors[f"{name}.bias"].shape == shape[:1] for name, shape in shapes)

    return max(fitting, key=biases)


def _layer(name, shape, form, tensors):
    """A layer's mask, weight and bias, of the right types and shapes and finite: three arrays."""
    for part, kind in {**form.parts, "{}.bias": np.float32}.items():
        if (found := tensors[part.format(name)].dtype) != kind:
            raise ValueError(f"{part.format(name)} is {found}, must be {np.dtype(kind)}")
    mask, weight = form.unpack(*(tensors[part.format(name)] for part in form.parts), shape)
    bias = tensors[f"{name}.bias"]
    if not mask.shape == weight.shape == shape or bias.shape != shape[:1]:
        raise ValueError(
            f"mask, weight and bias are {mask.shape}, {weight.shape} and {bias.shape}, must be for {shape}"
        )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ValueError("a value is not finite")
    return mask, weight, bias


def _sum(tensors, facts):
    digest = hashlib.sha256(json.dumps({**facts, "sha256": None}, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()
