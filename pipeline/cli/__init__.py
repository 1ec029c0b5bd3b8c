"""The command line: what people type, what they read, the exit code. Thin: the work is in `pipeline.run` and below.

`entry` holds the table of commands; a command's module is imported when it is invoked, and its functions import what
they need.
"""
