"""Collections kept open while they change: nobody waits for what somebody else is opening already."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pipeline.serve.meter import Meter
from pipeline.serve.shelf import Shelf
from tests import served


def test_while_a_new_generation_is_opened_the_one_before_answers(tmp_path: Path) -> None:
    given = served.settings(tmp_path / "data")
    docs = served.write(tmp_path / "docs", {"leave.md": served.DOCUMENTS["leave.md"]})
    served.build(given, docs)

    async def asked() -> None:
        shelf = Shelf(given, Meter())
        first = await shelf.open("default")
        (docs / "roof.md").write_text("# Roof\n\nThe roof is tarred in spring.\n")
        await asyncio.to_thread(served.build, given, docs)
        async with shelf._locks["default"]:  # as it is held by the question that came first after the publication
            assert await shelf.open("default") is first
            assert first.reader.count() == 1
        second = await shelf.open("default")
        assert second.reader.count() == 2
        assert second.embedder is first.embedder
        assert await shelf.open("default") is second
        shelf._forget(second)  # its files are gone: nobody is given it meanwhile
        async with shelf._locks["default"]:
            waiting = asyncio.create_task(shelf.open("default"))
            done, _ = await asyncio.wait([waiting], timeout=0.2)
            assert not done
        assert (await waiting).note == second.note
        await shelf.aclose()

    asyncio.run(asked())
