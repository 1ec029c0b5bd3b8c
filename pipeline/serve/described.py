"""What /openapi.json says of texts that a schema checks too late or too early.

Our own refusal of an empty question is a 400 that says what is missing, in each client's own words; a constraint that
pydantic checks would be a 422 before that, of another shape. So these types describe, and the code below decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

_SOME_TEXT: dict[str, Any] = {"pattern": r"\S"}

NonBlank = Annotated[str, Field(json_schema_extra=_SOME_TEXT)]  # not the empty text, not blanks alone


def one_of(names: Iterable[str]) -> dict[str, Any]:
    """For a text that is one of these names."""
    return {"enum": list(names)}


def between(least: int, most: int) -> Any:
    """For a list of so many items."""
    return Field(json_schema_extra={"minItems": least, "maxItems": most})


# A question is somewhere among the messages of a chat.
ASKS: dict[str, Any] = {
    "contains": {
        "properties": {"role": {"const": "user"}, "content": {"type": "string", **_SOME_TEXT}},
        "required": ["role", "content"],
    },
    "minItems": 1,
}
