"""What is chosen in widgets as one line of text, and chosen again from it; how widgets say what they refuse."""

import contextlib
import html
import json

from traitlets import TraitError

from ..methods import one_of

WHOLE = "this view: must be a line that was copied from here"


def line(widgets: dict) -> str:
    """What is chosen in these widgets, by name, as one line.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> line({"arm": SimpleNamespace(value="ticket"), "level": SimpleNamespace(value=7)})
    '{"arm": "ticket", "level": 7}'
    """
    return json.dumps({name: widget.value for name, widget in widgets.items()})


def restore(text: str, widgets: dict) -> None:
    """Choose what a line says, in the order of the widgets; what it leaves out stays.

    Raises
    ------
    ValueError
        One line that names what cannot be chosen and what can; what stands before it has been chosen then.
    """
    try:
        asked = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(WHOLE) from None
    if not isinstance(asked, dict):
        raise ValueError(WHOLE)
    for name in asked:
        if name not in widgets:
            raise ValueError(f"this view: {name!r} {one_of(name, widgets)}")
    for name in filter(asked.__contains__, widgets):
        try:
            widgets[name].value = asked[name]
        except (TraitError, TypeError):
            raise ValueError(f"this view: {name} = {asked[name]!r}: {_allowed(widgets[name], asked[name])}") from None


def _allowed(widget, value):
    """What a widget lets be chosen, in words."""
    options = getattr(widget, "options", ())
    names = [str(option[1] if isinstance(option, tuple) else option) for option in options]
    return one_of(value, names, str) if names else f"must be a value such as {widget.value!r}"


@contextlib.contextmanager
def refused_in(place):
    """Show there, in one line, what is refused."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        place.value = refusal(error)


def refusal(error):
    return f'<span style="color: #B00000">{html.escape(str(error))}</span>'
