"""`python -m pipeline` and the console script `pipeline`."""

from __future__ import annotations

from pipeline.cli import entry


def main() -> None:
    """Run the command line; always raises SystemExit with the exit code."""
    entry.cli.main(prog_name="pipeline")


if __name__ == "__main__":
    main()
