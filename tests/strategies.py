"""Random inputs that several test modules draw from."""

import copy

from hypothesis import strategies as st

from lthcore.runs import presets

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 100)
    | st.floats(allow_subnormal=False)
    | st.text(max_size=8)
    | st.sampled_from(["adam", "sgd", "cuda", "mlp", "lenet5", "relu", "global", "smallest"]),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
NAMES = st.sampled_from(sorted(presets.SETTINGS)) | st.text(max_size=12).filter(
    lambda name: name not in ("experiment", "preset")
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["rows.csv", "mlp"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def changes(draw):
    """A function from a file's bytes to others: bits turned, a piece cut out, put in or written over, the rest lost."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["turn", "cut", "insert", "write", "end"]), st.floats(0, 1), st.binary(max_size=9)
            ),
            min_size=1,
            max_size=3,
        )
    )

    def change(content):
        for kind, where, piece in steps:
            at = int(where * len(content))
            before, after = content[:at], content[at:]
            content = {
                "turn": before + bytes([after[0] ^ 1 << len(piece) % 8]) + after[1:] if after else before,
                "cut": before + after[len(piece) :],
                "insert": before + piece + after,
                "write": before + piece + after[len(piece) :],
                "end": before,
            }[kind]
        return content

    return change


def places(document, path=()):
    """Every place in a JSON document: list of paths."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(p for key, value in items for p in places(value, (*path, key)))]


@st.composite
def replacements(draw):
    """A function from a JSON document to one with another value, or none, at a place."""
    where, value, remove = draw(st.integers(0, 10**6)), draw(ANYTHING), draw(st.booleans())

    def replace(document):
        path = places(document)[where % len(places(document))]
        if not path:
            return value
        document = copy.deepcopy(document)
        inside = document
        for key in path[:-1]:
            inside = inside[key]
        if remove and isinstance(inside, dict):
            del inside[path[-1]]
        else:
            inside[path[-1]] = value
        return document

    return replace


def one_line(error):
    assert str(error) and len(str(error).splitlines()) == 1, str(error)
