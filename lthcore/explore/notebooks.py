"""What all notebooks share: the checkout they work on, their parameters, and the form of errors.

The setup cell of each calls :func:`start`, before papermill's parameters come. The rest is for whoever executes a
notebook: foreign metadata are left out of the copy that is executed, and a failure is shown in a line.
"""

import ast
import contextlib
import importlib
import json
import linecache
import os
import re
import signal
import sys
import threading
from functools import lru_cache
from pathlib import Path

from ..methods import meant
from ..studies import WHEN_ASKED

HERE = Path(__file__).resolve().parents[2]  # the checkout that this module is of
NEVER_BEGAN = "Kernel died before replying to kernel_info"  # what jupyter_client says
NOT_FOR_IT = "Uncaught exception in ZMQStream callback"  # what a kernel says of a message for another process's kernel
INJECTED = "# Parameters"  # the first line of the cell that papermill puts behind the parameters
ALWAYS = "preset"  # a parameter that every notebook has: the cell that assigns it is the cell of the parameters
KINDS = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float), "dict": (dict,), "list": (list,)}
IN_A_LINE = (KeyboardInterrupt, ValueError, RuntimeError, FloatingPointError, OSError)  # may end in a line
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {
    "file_extension": ".py", "mimetype": "text/x-python", "name": "python", "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}  # fmt: skip
COLLAPSED = "hide-input"  # the tag of a cell whose code is folded away, here and in exported pages
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}}  # the same for Colab and JupyterLab
LIVE = "skip-execution"  # the tag of a cell that shows something in a live notebook alone
EXPORTING = threading.Lock()  # pages are made in several threads
PAGE = """{% extends 'lab/index.html.j2' %}
{% block data_png %}{% set alt = output | get_metadata('alt', 'image/png') %}
{%- if alt %}{{ super() | replace('<img ', '<img alt="' ~ (alt | escape_html) ~ '" ', 1) }}
{%- else %}{{ super() }}{% endif %}{% endblock data_png %}"""  # of a notebook: a picture's alt text
WIDGET_STATE, WIDGET_VIEW = (f"application/vnd.jupyter.widget-{part}+json" for part in ("state", "view"))


# ---------------------------------------------------------------------------------------------------- in the kernel


def start():
    """Work on the checkout that the notebook lies in, and watch its parameters; outside IPython nothing is done.

    Raises
    ------
    ValueError
        If papermill's parameters come before the notebook's own, which replace them, or another checkout's package
        is found first whatever is done.
    """
    shell = _shell()
    if shell is None:
        return
    checkout = _checkout(_papermills_notebook() or Path.cwd() / "notebook")
    if checkout is None:
        print(f"This notebook lies in no checkout of the study: it works on {HERE}, its runs and its figures.")
    elif checkout != HERE and "lthcore.runs.store" not in sys.modules:  # which would mean that the work has begun
        sys.path.insert(0, str(checkout))
        for name in [name for name in sys.modules if name.partition(".")[0] == "lthcore"]:
            del sys.modules[name]
        module = importlib.import_module(__name__)
        if checkout != module.HERE:
            raise ValueError(f"this notebook lies in {checkout}, but Python finds lthcore in {module.HERE} first")
        module.start()
        return
    before = _history(shell)[:-1]
    if any(map(_is_injected, before)) and not any(map(_has_parameters, before)):
        raise ValueError(
            "the given parameters come first, where the notebook's own replace them: "
            f"the cell that assigns {ALWAYS!r} must be tagged 'parameters'"
        )
    watch()


def watch():
    """Refuse unknown parameters and wrong types in this kernel, now and from now on, and say our errors in a line.

    Raises
    ------
    ValueError
        One line that names the parameters and what is allowed.
    """
    shell = _shell()
    if shell is None:
        return
    ours = [t for t in shell.input_transformers_cleanup if getattr(t, "__module__", "") == __name__]
    if not ours:
        shell.input_transformers_cleanup.append(_refuse_before_it_runs)
    if shell.custom_exceptions == ():  # else somebody else's handler is at work
        shell.set_custom_exc(IN_A_LINE, _show)
    cells = [cell for cell in _history(shell) if _is_injected(cell) or _has_parameters(cell)]
    if cells and _is_injected(cells[-1]):
        _refuse(cells[-1], cells[:-1])


WHEN_ASKED.append(watch)


def _shell():
    """The running IPython, or None."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


def _history(shell):
    """The sources of the cells executed so far, this one included."""
    return [cell for cell in shell.user_ns.get("In", ()) if isinstance(cell, str)]


def _checkout(path):
    """The checkout that a file lies in, or None."""
    parents = Path(path).resolve().parents
    return next((p for p in parents if (p / "lthcore" / "explore" / "notebooks.py").is_file()), None)


def _papermills_notebook():
    """The notebook that papermill executes in this kernel, or None, from its command line."""
    with contextlib.suppress(Exception):  # whatever cannot be learned changes nothing
        import psutil  # as ipykernel does

        parent = psutil.Process().parent()
        call = parent.cmdline()
        if any(Path(word).stem == "papermill" for word in call[:4]):
            return Path(parent.cwd(), next(word for word in call if word.endswith(".ipynb")))
    return None


def is_exported():
    """Whether papermill executes this notebook, so that nobody is there to move a widget: bool."""
    return bool(os.environ.get("LTH_LINKS_FROM")) or _papermills_notebook() is not None


def _is_injected(cell):
    return cell.lstrip().partition("\n")[0].rstrip() == INJECTED


def _has_parameters(cell):
    """Whether it is the notebook's own cell of parameters, or one of the user's that sets some of them again."""
    return not _is_injected(cell) and ALWAYS in _assigned(cell)


def _assigned(cell):
    """What a cell assigns: dict, name -> (annotation or "", expression); a target that is no name as it is written."""
    try:
        statements = ast.parse(cell).body
    except (SyntaxError, ValueError):  # a name that is none, such as prune-rate
        lines = (line.partition(" = ") for line in cell.splitlines())
        return {name: ("", None) for name, equals, _ in lines if equals}
    out = {}
    for statement in statements:
        if isinstance(statement, ast.AnnAssign):
            out[ast.unparse(statement.target)] = ast.unparse(statement.annotation), statement.value
        elif isinstance(statement, ast.Assign):
            out |= {ast.unparse(target): ("", statement.value) for target in statement.targets}
    return out


def _refuse_before_it_runs(lines):
    """An input transformer of IPython, called with the lines of a cell before they are compiled."""
    cell = "".join(lines)
    if _is_injected(cell):
        _refuse(cell, _history(_shell()))
    return lines


def _refuse(injected, before):
    """Compare the injected cell with the cell of parameters before it, if there is one."""
    known = {}
    for cell in reversed(list(filter(_has_parameters, before))):  # the first annotation of a name counts
        known |= _assigned(cell)
    if not known:
        return
    given = _assigned(injected)
    if unknown := [name for name in given if name not in known]:
        near = "".join(meant(name, known).replace("did", f"for {name!r}, did", 1) for name in unknown)
        raise _in_a_line(
            f"unknown parameter{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}: must be one of "
            f"{', '.join(known)}; any other setting is given in 'overrides'{near}"
        )
    for name, (_, expression) in given.items():
        kind = known[name][0]
        with contextlib.suppress(ValueError, TypeError, RecursionError, MemoryError):  # no literal
            value = ast.literal_eval(expression)
            if kind in KINDS and type(value) not in KINDS[kind]:
                break
    else:
        return
    raise _in_a_line(f"{name} = {value!r}: must be {'an' if kind == 'int' else 'a'} {kind}")


def _in_a_line(text):
    """A ValueError that IPython shows without its frames."""
    error = ValueError(text)
    error._render_traceback_ = lambda: [f"ValueError: {text}"]
    return error


def _show(shell, kind, error, trace, tb_offset=None):
    """IPython's handler of exceptions: an interruption, and what this package refuses, in a line without frames."""
    line = (
        "interrupted; finished levels are kept, the same cell continues from them" if kind is KeyboardInterrupt else ""
    )
    if kind in IN_A_LINE and _raised_here(trace):
        line = str(error)
    if line and "\n" not in line:
        error._render_traceback_ = lambda: [f"{kind.__name__}: {line}"]
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)


def _raised_here(trace):
    """Whether a statement of this package raised an exception, here or in a worker: what it says is all there is."""
    while trace.tb_next:
        trace = trace.tb_next
    path = Path(trace.tb_frame.f_code.co_filename)
    ours = path.is_relative_to(HERE / "lthcore") or path.parts[-3:-1] == ("concurrent", "futures")
    return ours and linecache.getline(str(path), trace.tb_lineno).lstrip().startswith("raise")


# ----------------------------------------------------------------------------------------- before and after the kernel


def normalised(path, folder=None):
    """A notebook as it is executed: its cells, their tags, and our kernel; no outputs, nothing that others left in it.

    Parameters
    ----------
    path : Path
        Of a notebook that may have been saved by Colab, a code host, or an older Jupyter.
    folder : Path, optional
        Where the executed copy will lie, if elsewhere: links to files in other folders then lead there from it.

    Returns
    -------
    nbformat.NotebookNode

    Raises
    ------
    ValueError
        If it is no notebook.
    """
    import nbformat
    from nbformat import v4

    try:
        found = json.loads(Path(path).read_text("utf-8-sig"))
        for part in (found, *found.get("cells", ())):
            for name, kind in (("metadata", dict), ("outputs", list), ("attachments", dict)):
                if name == "metadata" or name in part:  # which nbformat reads without asking
                    part[name] = part[name] if isinstance(part.get(name), kind) else kind()
        found = nbformat.convert(nbformat.reader.reads(json.dumps(found)), 4)
        makers = {"code": v4.new_code_cell, "markdown": v4.new_markdown_cell}
        cells = []
        for n, cell in enumerate(found.cells):
            tags = cell.get("metadata", {}).get("tags")
            tags = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
            metadata = ({"tags": tags} if tags else {}) | (FOLDED if COLLAPSED in tags else {})
            kept = makers.get(cell.cell_type, v4.new_raw_cell)(source=_encodable(cell.source), metadata=metadata)
            name = str(cell.get("id", ""))
            taken = {c.id for c in cells}
            kept.id = name if re.fullmatch(r"[\w-]{1,64}", name, re.A) and name not in taken else f"cell-{n}-of-copy"
            if cell.cell_type == "markdown" and cell.get("attachments"):
                kept.attachments = cell.attachments
            cells.append(kept)
    except Exception as error:  # whatever stands in the file
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{path} cannot be read as a notebook ({reason[:200]})") from None
    if not any("parameters" in cell.metadata.get("tags", ()) for cell in cells):  # the tags got lost
        for cell in [cell for cell in cells if cell.cell_type == "code" and ALWAYS in _assigned(cell.source)][:1]:
            cell.metadata.tags = [*cell.metadata.get("tags", ()), "parameters"]
    for cell in cells if folder else ():
        if cell.cell_type == "markdown":
            there = os.path.relpath(Path(path).parent.parent, folder).replace(os.sep, "/")
            cell.source = re.sub(r"\]\(\.\./(?=[^)\s])", f"]({there}/", cell.source)
    try:
        return v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL, "language_info": LANGUAGE})
    except nbformat.ValidationError as error:
        raise ValueError(f"{path} cannot be read as a notebook ({str(error).splitlines()[0][:200]})") from None


def _encodable(text):
    """A text without halves of characters, which no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parameters(notebook):
    """Names of a notebook's parameters: list of str."""
    tagged = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    return list(_assigned(tagged[0])) if tagged else []


def without_times(path):
    """Take out of an executed copy what differs from run to run: times, papermill's paths, its cell's id, a version."""
    import nbformat

    notebook = nbformat.read(path, 4)
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    notebook.metadata |= {"papermill": {"parameters": given}, "language_info": LANGUAGE}
    for cell in notebook.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell["id"] = "injected-parameters"
            cell.metadata |= FOLDED | {"tags": [*cell.metadata.tags, COLLAPSED]}  # the table of settings shows them
    nbformat.write(notebook, path)


def page(path):
    """An executed notebook as html: str.

    Without the code that is folded away, the cells that need a kernel, and the widgets whose state is not in it.
    """
    import nbformat

    notebook = nbformat.read(path, 4)
    kept = notebook.metadata.get("widgets")
    kept = kept.get(WIDGET_STATE) if isinstance(kept, dict) else None
    models = kept.get("state") if isinstance(kept, dict) else None
    if not isinstance(models, dict):
        notebook.metadata.pop("widgets", None)
        models = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            view = output.get("data", {}).get(WIDGET_VIEW)
            if view is not None and not (isinstance(view, dict) and view.get("model_id") in models):
                del output.data[WIDGET_VIEW]
    notebook.cells = [c for c in notebook.cells if c.get("outputs") or LIVE not in c.metadata.get("tags", ())]
    with EXPORTING:
        return _exporter().from_notebook_node(notebook, {"metadata": {"name": Path(path).stem}})[0]


@lru_cache
def _exporter():
    """What makes pages: one for all, since its templates take as long to compile as a page to write."""
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import TagRemovePreprocessor

    exporter = HTMLExporter(raw_template=PAGE)
    exporter.register_preprocessor(TagRemovePreprocessor(remove_input_tags={COLLAPSED}), enabled=True)
    return exporter


def why_it_failed(status, errors):
    """Why papermill ended, from its exit status and what it wrote: the error in a cell as it was shown, else a line."""
    if status < 0:
        known = {s.value: s.name for s in signal.Signals}
        name = known.get(-status, f"signal {-status}")
        return f"papermill was ended by {name}{' (out of memory?)' * (name == 'SIGKILL')}"
    at, last = errors.rfind("PapermillExecutionError"), (errors.strip().splitlines() or [""])[-1]
    if at >= 0 and " cannot be written (" not in last:  # a disk that is full: no cell's fault
        return errors[at:].strip()[-4000:]
    return last or f"papermill ended with status {status}"
