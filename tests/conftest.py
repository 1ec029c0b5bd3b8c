"""What holds for all tests: a shell that runs them in the background makes them, and their children, ignore Ctrl-C."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
