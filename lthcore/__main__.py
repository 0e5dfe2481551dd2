"""``python -m lthcore``: the command line, or one line where this Python is too old to read it."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit("run_all.sh: the study needs Python 3.11 or newer, this is " + sys.version.split()[0])

from .cli import main

sys.exit(main())
