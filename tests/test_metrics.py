"""The metrics file: the exposition format to the letter, and a file that a collector may read at any moment."""

from __future__ import annotations

import dataclasses
import os
import re
from datetime import datetime
from pathlib import Path

import pytest

from pipeline import errors, metrics
from pipeline.report import Report
from tests.report_samples import FAILED, FULL

# https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details
HELP = re.compile(r"# HELP ([a-z_][a-z0-9_]*) ([^\\\n]+)")
TYPE = re.compile(r"# TYPE ([a-z_][a-z0-9_]*) (gauge)")
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"')
SAMPLE = re.compile(rf"([a-z_][a-z0-9_]*)\{{({LABEL.pattern}(?:,{LABEL.pattern})*)\}} (-?[0-9.]+(?:e[+-]?[0-9]+)?)")
UNITS = ("_seconds", "_bytes")

Samples = dict[tuple[str, str], float]  # (name, fate or "") -> value


def parse(text: str) -> tuple[Samples, set[str]]:
    """Read a file strictly: HELP, TYPE and then the samples of each name, each name once. Also its collections."""
    samples: Samples = {}
    collections = set()
    name = ""
    assert text.endswith("\n")
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("#"):
            about = HELP.fullmatch(line)
            kind = TYPE.fullmatch(next(lines))
            assert about
            assert kind
            assert about[1] == kind[1]
            assert about[1] not in {known for known, _ in samples}
            name = about[1]
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        assert sample[1] == name
        labels = dict(LABEL.findall(sample[2]))
        key = (name, labels.pop("fate", ""))
        assert key not in samples
        samples[key] = float(sample[len(sample.groups())])
        collections.add(labels.pop("collection"))
        assert not labels
    return samples, collections


def test_the_file_holds_the_figures_of_the_run() -> None:
    samples, collections = parse(metrics.text(FULL))
    assert collections == {"Dienst & Wiki"}
    assert samples["pipeline_run_exit_code", ""] == 3
    assert samples["pipeline_run_duration_seconds", ""] == 192.6
    assert samples["pipeline_run_timestamp_seconds", ""] == datetime.fromisoformat(FULL.started_at).timestamp()
    assert samples["pipeline_run_embedded_tokens", ""] == 231_004
    assert samples["pipeline_disk_bytes", ""] == 187_300_000
    assert samples["pipeline_rejects", ""] == 3
    assert samples["pipeline_run_recall_ratio", ""] == 0.9
    fates = {fate: count for (name, fate), count in samples.items() if name == "pipeline_run_files"}
    assert fates == FULL.files


def test_a_failed_night_keeps_the_time_of_the_last_success() -> None:
    samples, _ = parse(metrics.text(FAILED))
    assert samples["pipeline_run_exit_code", ""] == 5
    last = samples["pipeline_last_success_timestamp_seconds", ""]
    assert last == datetime.fromisoformat(FAILED.last_success_at).timestamp()
    assert last < samples["pipeline_run_timestamp_seconds", ""]
    assert ("pipeline_run_files", "") not in samples


def test_what_is_not_known_is_left_out() -> None:
    samples, _ = parse(metrics.text(Report(collection="new", stages=())))
    assert ("pipeline_last_success_timestamp_seconds", "") not in samples
    assert ("pipeline_run_recall_ratio", "") not in samples
    assert ("pipeline_run_exit_code", "") in samples


def test_names_say_their_units() -> None:
    for name, _ in parse(metrics.text(FULL))[0]:
        assert name.startswith("pipeline_")
        assert not name.endswith("_total")  # that is a counter, which a file written anew each time is not
        assert name.endswith(UNITS) == any(word in name for word in ("duration", "timestamp", "bytes")), name


def test_labels_are_escaped() -> None:
    odd = dataclasses.replace(FULL, collection='a"b\\c\nd')
    assert '{collection="a\\"b\\\\c\\nd"}' in metrics.text(odd)
    parse(metrics.text(odd))


def test_the_file_is_replaced_whole_and_readable_for_the_collector(tmp_path: Path) -> None:
    path = tmp_path / "made" / "pipeline.prom"
    before = os.umask(0o077)
    try:
        metrics.write(path, FULL)
        metrics.write(path, FAILED)
    finally:
        os.umask(before)
    assert path.read_text(encoding="utf-8") == metrics.text(FAILED)
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]  # no draft left


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.StoreError, match=r"file/x\.prom cannot be written") as caught:
        metrics.write(tmp_path / "file" / "x.prom", FULL)
    assert "report.metrics_file" in caught.value.remedy
    target = tmp_path / "folder.prom"
    target.mkdir()
    with pytest.raises(errors.StoreError):
        metrics.write(target, FULL)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder.prom"}
