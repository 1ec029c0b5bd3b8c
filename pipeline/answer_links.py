"""Text that a model or a document wrote, so that nothing in it becomes a link or markup where it is rendered.

A passage may tell the model to write an image whose address carries what it read: a client that renders Markdown would
fetch it without a click. So in every answer, wherever it is shown:

- a Markdown link or image is taken apart: "[text](address)" becomes "[text] (address)", "[x]: address" "[x] : address";
- "<" before a letter, "/", "!" or "?" becomes "‹": no HTML, no comment, no <address>;
- an address that stands in no passage and not in the question is broken: "https: //…", "www. …". One that stands there
  is what the documents say, and can be read and copied, but hides nothing.

Works on a stream; knows text, nothing of models.
"""

from __future__ import annotations

import re

_BEFORE = 24  # code points put out that are looked at again: the scheme of an address
_SPOT = re.compile(
    r"(?<=[\]】])(?=[(:])"
    r"|<(?=[A-Za-z/!?])"
    r"|(?<=[A-Za-z0-9])://(?P<rest>[!-;=?-Z\\^-~]*)"
    r"|(?<=www)\.(?P<host>[!-;=?-Z\\^-~]*)",
    re.IGNORECASE,
)
_UNDECIDED = re.compile(
    r"(?:<|(?<=[A-Za-z0-9]):/{0,2}|(?<=[A-Za-z0-9])://[!-;=?-Z\\^-~]+|(?<=www)\.[!-;=?-Z\\^-~]*)\Z", re.IGNORECASE
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")
_TRAILING = ".,;:!?)]}'\"*_`"
_LONGEST = 2_000  # code points of an address that are waited for


class Links:
    """Feed the pieces of a text, put out what is ready.

    Args:
        known: texts whose addresses may be shown: the passages and the question.

    Attributes:
        count: of the places that were changed.
    """

    def __init__(self, known: str) -> None:
        self._known = known
        self._before = ""
        self._held = ""
        self.count = 0

    def feed(self, piece: str) -> str:
        """What can be shown now; what may become a link is held back until it is complete."""
        text = self._held + piece
        undecided = _UNDECIDED.search(self._before + text)
        held = len(self._before) + len(text) - undecided.start() if undecided else 0
        if not 0 < held <= min(len(text), _LONGEST):
            held = 0
        self._held = text[len(text) - held :]
        return self._put_out(text[: len(text) - held])

    def close(self) -> str:
        """The rest, when nothing more comes."""
        rest, self._held = self._held, ""
        return self._put_out(rest)

    def _put_out(self, text: str) -> str:
        whole, done = self._before + text, len(self._before)
        parts: list[str] = []
        for spot in _SPOT.finditer(whole, done):
            parts.append(whole[done : spot.start()])
            parts.append(self._changed(whole, spot))
            done = spot.end()
        self._before = whole[-_BEFORE:]
        return "".join([*parts, whole[done:]])

    def _changed(self, whole: str, spot: re.Match[str]) -> str:
        found = spot[0]
        if found.startswith((":", ".")):
            scheme = _SCHEME.search(whole[: spot.start()])
            address = (scheme[0] if scheme else "") + found.rstrip(_TRAILING)
            if address in self._known:
                return found
            found = found.replace("://", ": //", 1) if found.startswith(":") else ". " + found[1:]
        elif found == "<":
            found = "‹"
        else:
            found = " "
        self.count += 1
        return found


def plain(text: str, known: str) -> str:
    """The whole of a text at once."""
    links = Links(known)
    return links.feed(text) + links.close()
