"""What a user has added to the built-in criteria, rewind rules, models and data sets, for other processes."""

from ..methods import BUILT_IN, RECORDS


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
