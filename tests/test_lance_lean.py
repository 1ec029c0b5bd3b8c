"""A process that leaves out the remote catalogue's client: a table works as ever, and a command does not load it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CYCLE = """
import sys
from pathlib import Path
from pipeline import lance, lance_lean
lance_lean.install()
from tests import passages
folder = Path(sys.argv[1])
table = lance.Table.open(folder, "chunks", passages.DIMS, passages.MADE_BY)
table.add(passages.rows(passages.numbered(range(600))).to_reader())
print(table.finish(vector_index_from=500))
table.delete([passages.numbered([3])[0].chunk_id])
done = table.finish(vector_index_from=500)
table.clean(done.version)
reader = lance.Reader.open(folder, "chunks")
print(reader.count(), reader.text("ledger", 5).num_rows, reader.vector(passages.direction(1.0), 5).num_rows)
loaded = [name for name in sys.modules if name.startswith(lance_lean.UNUSED) and hasattr(sys.modules[name], "__file__")]
print("loaded", loaded)
try:
    sys.modules[lance_lean.UNUSED].CreateTableRequest()
except RuntimeError as error:
    print("refused", error)
"""
ROOT = Path(__file__).parent.parent


def test_a_table_needs_no_remote_catalogue(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CYCLE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "vector_index=True" in lines[0]
    assert lines[1:3] == ["599 5 5", "loaded []"]
    assert lines[3].startswith("refused CreateTableRequest belongs to")


def said(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()[-1]


def test_the_program_installs_it_and_the_library_does_not() -> None:
    show = "print(type(sys.meta_path[0]).__name__)"
    assert said(f"import sys, pipeline.query; {show}") != "_Blanks"
    start = "import pipeline.__main__; sys.argv[1:] = ['--version']; pipeline.__main__.main()"
    assert said(f"import sys, atexit; atexit.register(lambda: {show}); {start}") == "_Blanks"
