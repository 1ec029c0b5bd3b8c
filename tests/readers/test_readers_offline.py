"""Reading never touches the network: an audit hook ends the process on the first attempt."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from tests.readers import samples

READ = """
import json, os, sys
ATTEMPTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")
def forbid(event, arguments):
    if event in ATTEMPTS:
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(forbid)
from pipeline import readers
options = readers.ReaderOptions(**json.loads(sys.argv[2]))
made = {}
for name in sorted(os.listdir(sys.argv[1])):
    with open(os.path.join(sys.argv[1], name), "rb") as file:
        made[name] = readers.read_bytes(file.read(), name, options)
heavy = "spacy numba nltk torch huggingface_hub unstructured_client onnxruntime lancedb pyarrow".split()
told = {name: [one.reader, len(one.text)] for name, one in made.items()}
print(json.dumps([told, [name for name in heavy if name in sys.modules]]))
"""
EXTERNAL = '<!DOCTYPE d [<!ENTITY x SYSTEM "http://127.0.0.1:9/x">]>'

DOCUMENTS = {
    "a.docx": samples.docx(),
    "a.pptx": samples.pptx(),
    "a.msg": samples.msg("Fuses", "Dear Tom,\r\n\r\nthe fuses are ordered. They will come soon.\r\n"),
    "a.pdf": samples.pdf([["A sentence of text."]]),
    "a.html": b"<link rel=stylesheet href='http://127.0.0.1:9/x'><img src='http://127.0.0.1:9/y'><p>Text here.",
    "a.epub": samples.epub([f"{EXTERNAL}<p>Text &x; here.</p>"]),
    "a.odt": samples.odt("<text:p>Text</text:p>"),
}


def check_offline(folder: Path, names: Collection[str], options: dict[str, str], readers: str) -> None:
    """Read them in one process of its own: none may go out, and none may load what is heavy."""
    for name in names:
        (folder / name).write_bytes(DOCUMENTS[name])
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder), json.dumps(options)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told, heavy = json.loads(done.stdout)
    assert told.keys() == set(names)
    for reader, characters in told.values():
        assert reader.startswith(readers)
        assert characters > 3
    assert heavy == []


def test_offline(tmp_path: Path) -> None:
    check_offline(tmp_path, DOCUMENTS.keys(), {}, "")


def test_offline_by_unstructured(tmp_path: Path) -> None:
    check_offline(tmp_path, ["a.pdf", "a.html"], {"pdf": "unstructured", "html": "unstructured"}, "unstructured-")


def test_the_hook_would_notice(tmp_path: Path) -> None:
    script = READ.replace("from pipeline import readers", "import socket; socket.create_connection(('127.0.0.1', 9))")
    done = subprocess.run([sys.executable, "-c", script, "x", "{}"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "socket." in done.stderr
