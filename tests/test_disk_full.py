"""A disk that fills up, wherever in a run that is: the exit is clean, and the same command finishes the work later."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import config, dry_run, errors, run, status
from pipeline.progress import Silent
from tests.fake_ollama.client import FakeOllama
from tests.test_run import ALL, write_documents


def mounted(folder: Path, *options: str) -> bool:
    """Mount, or mount again with other options, a file system in memory at `folder`."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    words = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted(folder, "size=64k"):
        pytest.skip("a file system of a chosen size can only be mounted by root on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_run_that_will_not_fit_is_not_begun(small_disk: Path, tmp_path: Path, server: FakeOllama) -> None:
    """With the figures, and with nothing written but the report of it."""
    write_documents(tmp_path / "docs", files=12)
    assert mounted(small_disk, "remount", "size=800k")
    settings = config.Settings(
        data=str(small_disk / "data"),
        embed=config.EmbedSettings(provider="ollama"),
        ollama=config.OllamaSettings(hosts=(server.url,)),
        readers=config.ReaderSettings(workers=1),
    )
    request = run.Request(stages=ALL, folders=(tmp_path / "docs",))
    with pytest.raises(errors.DiskFull) as caught:
        run.execute(settings, request, Silent())
    assert "12 new or changed files" in caught.value.message
    assert re.search(r"needs about [\d.]+ (MB|kB) and \d+ kB are free", caught.value.message)
    assert re.search(r"Free [\d.]+ (MB|kB)", caught.value.remedy)
    planned = dry_run.plan(settings, request, Silent())
    assert any("The run would stop: This run needs about" in note for note in planned.notes)
    assert server.texts() == []
    assert not (small_disk / "data" / "default" / "documents").exists()
    assert mounted(small_disk, "remount", "size=64m")
    assert run.execute(settings, request, Silent()).documents == 12


@pytest.mark.parametrize("size", ["40k", "110k", "300k", "440k"])
def test_a_run_survives_a_full_disk(small_disk: Path, tmp_path: Path, server: FakeOllama, size: str) -> None:
    write_documents(tmp_path / "docs")
    assert mounted(small_disk, "remount", f"size={size}")
    settings = config.Settings(
        data=str(small_disk / "data"),
        embed=config.EmbedSettings(provider="ollama", flush_s=0.1),
        ollama=config.OllamaSettings(hosts=(server.url,)),
        readers=config.ReaderSettings(workers=1),
        run=config.RunSettings(disk_check=False),  # which would refuse to begin
    )
    request = run.Request(stages=ALL, folders=(tmp_path / "docs",))
    with pytest.raises(errors.StoreError) as caught:
        run.execute(settings, request, Silent())
    assert "space" in str(caught.value)
    assert "Free" in caught.value.remedy
    assert mounted(small_disk, "remount", "size=64m")
    report = run.execute(settings, request, Silent())
    found = status.examine(settings)
    assert (report.documents, report.failures) == (6, ())
    assert found.indexed_rows == report.chunks == report.vectors
    assert not found.pending.index
