"""What a user has added to the built-in criteria, rewind rules, models and data sets: checked and sent."""

import math

from ..methods import BUILT_IN, FUNCTION, RECORDS, function
from ..schedule import CLASSES


def fault(setting, record):
    """What makes no sense in a record that a user has added, in words; empty where nothing does: str."""
    given = getattr(record, FUNCTION[setting])
    try:
        if given not in [getattr(known, FUNCTION[setting]) for known in BUILT_IN[setting].values()]:
            function(given)
    except ValueError as error:
        return str(error)
    return {"model": _fault_of_model, "dataset": _fault_of_data}.get(setting, lambda _: "")(record)


def _fault_of_model(record):
    if not isinstance(record.weights, dict) or not all(str(name).isidentifier() for name in record.weights or "?"):
        return "must be registered with the shapes of its weights, by layer, each with a name such as 'fc1'"
    shapes = [tuple(shape) for shape in record.weights.values()]
    if {len(shape) for shape in shapes} - {2, 4} or any(type(n) is not int or n < 1 for s in shapes for n in s):
        return "its weights must have shapes (out, in) or (out, in, rows, columns), of whole numbers from 1 on"
    if record.module == "lthcore.models:MLP" and record.activation not in ("relu", "tanh", "identity"):
        return f"its activation {record.activation!r} must be one of 'relu', 'tanh', 'identity'"
    if shapes[-1][0] != CLASSES:
        return f"its last layer has {shapes[-1][0]} outputs, must be {CLASSES}"
    if any(len(shape) == 4 for shape in shapes):
        return ""  # what is between them only the module knows
    given = [math.prod(image) for image in record.images]
    for name, (out, into) in record.weights.items():
        if set(given) != {into}:
            return f"its layer {name} takes {into} numbers and is given {given[0]}"
        given = [out]
    return ""


def _fault_of_data(record):
    if len(record.shape) != 3 or not len(record.mean) == len(record.std) == record.shape[0]:
        return "must be registered with a mean and a std for each of its channels"
    return ""


def added():
    """What has been added here to the built-in records, for other processes: dict, (setting, name) -> bytes.

    Functions of a notebook or a script are sent as they are, those of a module by its name.

    Raises
    ------
    ValueError
        If one cannot be sent; one line that names it.
    """
    out = {}
    for setting, (records, _) in RECORDS.items():
        for name, record in records.items():
            if record is BUILT_IN[setting].get(name):
                continue
            import cloudpickle

            try:
                out[setting, name] = cloudpickle.dumps(record)
            except Exception as error:  # whatever a user's function holds on to
                text = " ".join(f"{type(error).__name__}: {error}".split())
                raise ValueError(f"{setting} = {name!r}: cannot be sent to other processes ({text})") from None
    return out


def add(sent):
    """In another process: take over what :func:`added` has given."""
    for (setting, name), record in sent.items():
        import cloudpickle

        RECORDS[setting][0][name] = cloudpickle.loads(record)
