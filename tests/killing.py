"""Commands killed by SIGKILL just before their n-th change of the file system: a server of its own process, since only
a process that has begun no thread may fork.

    python -m tests.killing COMMAND N=FOLDER...       COMMAND: gc or fix; FOLDER holds settings.json and data/

The command on FOLDER is killed before its N-th change. Prints for each folder "killed", "done" or "failed".
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline import check, config, garbage, lance_lean
from pipeline.progress import Silent

CHANGES = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir"})
ROOT = Path(__file__).parent.parent


def kill_all(command: str, folders: Mapping[int, Path], settings: config.Settings) -> list[str]:
    """Run `command` on each folder's data, killed before its n-th change; what became of each."""
    for folder in folders.values():
        own = msgspec.structs.replace(settings, data=str(folder / "data"))
        (folder / "settings.json").write_bytes(msgspec.json.encode(own))
    words = [sys.executable, "-m", "tests.killing", command, *(f"{n}={folder}" for n, folder in folders.items())]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.split()


def _kill_before(change: int) -> None:
    """Arrange for this process's end."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or writes:
            seen += 1
            if seen == change:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _run(command: str, folder: Path, change: int) -> None:
    settings = msgspec.json.decode((folder / "settings.json").read_bytes(), type=config.Settings)
    _kill_before(change)
    if command == "gc":
        garbage.collect(settings, Silent())
    else:
        check.check(settings, Silent(), fix=True)


def main(command: str, folders: Sequence[str]) -> None:
    for word in folders:
        change, _, folder = word.partition("=")
        child = os.fork()
        if not child:
            try:
                _run(command, Path(folder), int(change))
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            print("killed", flush=True)
        else:
            print("done" if os.WEXITSTATUS(status) == 0 else "failed", flush=True)


if __name__ == "__main__":
    lance_lean.install()
    main(sys.argv[1], sys.argv[2:])
