"""A document of which some pages cannot be read: searchable, and named in the report until that has changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline import config, run
from pipeline.progress import Silent
from pipeline.report import Report
from pipeline.store import Collection
from tests.readers import pages

TEXT = pages.text(["The station lost ten hours of its records in one night."])
SCAN = np.zeros((40, 30), np.uint8)


@pytest.fixture
def settings(tmp_path: Path) -> config.Settings:
    (tmp_path / "docs").mkdir()
    return config.Settings(
        data=str(tmp_path / "data"),
        embed=config.EmbedSettings(provider="builtin"),
        readers=config.ReaderSettings(workers=1, ocr="off"),
        run=config.RunSettings(max_delete=1),
    )


def ingest(settings: config.Settings, folder: Path) -> Report:
    return run.execute(settings, run.Request(stages=frozenset({"ingest"}), folders=(folder / "docs",)), Silent())


def test_a_report_names_the_pages_until_they_can_be_read(settings: config.Settings, tmp_path: Path) -> None:
    file = tmp_path / "docs" / "a.pdf"
    file.write_bytes(pages.pdf([TEXT, SCAN, TEXT]))
    os.utime(file, (1_600_000_000, 1_600_000_000))
    for _ in range(2):  # found, and remembered
        report = ingest(settings, tmp_path)
        (failure,) = report.failures
        assert (failure.uri, failure.kind, failure.reason) == ("a.pdf", "pages", "page 2 scanned: needs OCR")
        assert (report.documents, report.files["failed"]) == (1, 0)
    assert Collection(tmp_path / "data", "default").rejects().num_rows == 1
    file.write_bytes(pages.pdf([TEXT, TEXT]))
    assert ingest(settings, tmp_path).failures == ()
