"""`python -m pipeline` and the console script `pipeline`."""

from __future__ import annotations

import io
import sys

from pipeline import lance_lean
from pipeline.cli import entry


def main() -> None:
    """Run the command line; always raises SystemExit with the exit code.

    A character that the terminal's encoding lacks is shown as an escape: a Chinese heading must not end a search.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    lance_lean.install()
    entry.cli.main(prog_name="pipeline")


if __name__ == "__main__":
    main()
