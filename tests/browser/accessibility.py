"""axe-core's report on a page as it stands, for people to read where it finds something."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

GRAVE = ("serious", "critical")


def report(page: Page, *rules: str) -> list[str]:
    """Each thing that axe-core calls serious or critical: rule, why, where, and the element. `rules`: these alone."""
    from axe_playwright_python.sync_playwright import Axe

    only = {"runOnly": {"type": "rule", "values": list(rules)}} if rules else {}
    found = Axe().run(page, options={"resultTypes": ["violations"], **only}).response["violations"]
    return [
        f"{rule['impact']} {rule['id']}: {rule['help']}\n  at {node['target']}: {node['html'][:200]}\n  "
        + " ".join(check["message"] for check in node["any"] + node["all"] + node["none"])
        for rule in found
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    ]


def check(page: Page, name: str, *rules: str) -> None:
    """AssertionError with axe-core's report where it finds something serious or critical."""
    found = report(page, *rules)
    assert not found, f"{name}:\n" + "\n".join(found)
