"""unstructured's heavy route: said up front what it lacks, and never left to fail file by file."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import changes, config, errors, readers
from pipeline.readers import hi_res
from tests.readers import samples

SETTINGS = config.Settings(readers=config.ReaderSettings(pdf="unstructured", unstructured_strategy="hi_res"))
LACKING = any(importlib.util.find_spec(name) is None for name in hi_res.PACKAGES)


@pytest.mark.parametrize("pdf", ["pdfium", "unstructured"])
def test_fast_needs_nothing(pdf: str) -> None:
    assert hi_res.chosen(pdf, "fast") == pdf


def test_it_is_for_unstructured() -> None:
    with pytest.raises(errors.ConfigError) as caught:
        hi_res.chosen("pdfium", "hi_res")
    assert 'readers.pdf = "unstructured"' in caught.value.remedy


@pytest.mark.skipif(not LACKING, reason="the extra hi-res is installed")
def test_without_its_packages_no_run_begins() -> None:
    with pytest.raises(errors.ConfigError) as caught:
        changes.reader_options(SETTINGS)
    assert "unstructured_inference" in caught.value.message
    assert ".[hi-res]" in caught.value.remedy


CACHE = """
def try_to_load_from_cache(repository, file):
    return {found!r}
"""
PARTITION = """
import json, os
from types import SimpleNamespace
def partition_pdf(**options):
    told = {name: options[name] for name in ("strategy", "languages")} | {"offline": os.environ["HF_HUB_OFFLINE"]}
    metadata = SimpleNamespace(page_number=1, category_depth=0, text_as_html=None)
    yield SimpleNamespace(category="Title", text="Ice", metadata=metadata)
    yield SimpleNamespace(category="NarrativeText", text=json.dumps(told), metadata=metadata)
"""


class FakePackages:
    """Stand in for the 7 GB: a folder for PYTHONPATH, and a PATH with the two programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in hi_res.PACKAGES:
            (folder / f"{name}.py").touch()
        self.cached = True
        for name in hi_res.PROGRAMS:
            program = folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.touch(mode=0o755)

    @property
    def cached(self) -> bool:
        raise AttributeError

    @cached.setter
    def cached(self, value: bool) -> None:
        (self.folder / "huggingface_hub.py").write_text(CACHE.format(found="/a/model" if value else None))

    def run(self, script: str, *, programs: bool = True) -> subprocess.CompletedProcess[str]:
        root = str(Path(readers.__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": f"{self.folder}:{root}"}
        environment["PATH"] = str(self.folder / "bin") if programs else str(self.folder)
        return subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
        )


ASK = "from pipeline.readers import hi_res; print(hi_res.chosen('unstructured', 'hi_res'))"


def test_what_it_needs_is_looked_for_up_front(tmp_path: Path) -> None:
    fake = FakePackages(tmp_path)
    assert fake.run(ASK).stdout.strip() == hi_res.NAME
    assert "apt install tesseract-ocr poppler-utils" in fake.run(ASK, programs=False).stderr
    fake.cached = False
    assert "hf download unstructuredio/yolo_x_layout" in fake.run(ASK).stderr


def test_pages_go_to_its_partition_offline(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(samples.pdf([["Ice."]]))
    script = f"""
import sys, types
from pipeline.readers import unstructured_
unstructured_._partitioner("text")
module = types.ModuleType("unstructured.partition.pdf")
exec({PARTITION!r}, module.__dict__)
sys.modules["unstructured.partition.pdf"] = module
from pipeline import readers
data = open({str(tmp_path / "a.pdf")!r}, "rb").read()
for ocr in ("", "tesseract/5.3(eng+chi_sim)", "rapidocr/3.10"):
    made = readers.read_bytes(data, "a.pdf", readers.ReaderOptions(pdf="unstructured-hi_res", ocr=ocr))
    print(made.title, made.reader, made.text.split(chr(10))[-1])
"""
    done = FakePackages(tmp_path).run(script)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 2) for line in done.stdout.strip().split("\n")]
    assert {(title, reader) for title, reader, _ in lines} == {("Ice", "unstructured-pdf-hi-res/1")}
    told = [json.loads(line) for _, _, line in lines]
    assert [one["languages"] for one in told] == [["eng"], ["eng", "chi_sim"], ["eng"]]
    assert {(one["strategy"], one["offline"]) for one in told} == {("hi_res", "1")}


def test_the_choice_is_in_the_fingerprint() -> None:
    fast, heavy = readers.ReaderOptions(pdf="unstructured"), readers.ReaderOptions(pdf=hi_res.NAME)
    assert readers.reader_of("a.pdf", fast) != readers.reader_of("a.pdf", heavy)
    assert not readers.is_current(readers.reader_of("a.pdf", fast), "a.pdf", heavy)
