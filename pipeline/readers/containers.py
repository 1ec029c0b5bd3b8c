"""Files that hold documents: archives, mails with attachments, mailboxes. What is inside them, depth first.

Knows names, limits and the order in which documents are taken; `unpack` knows archives, `mail` and `unstructured_`
their messages. Reads no document, writes nothing to disk.

A document inside a file is named by the file's name, "!/", and its own: "box.zip!/notes/a.md", "mail.eml!/report.pdf",
"in.mbox!/0007.eml!/report.pdf" (the separator of Java's jar URLs, which Tika and Commons VFS use too).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline import errors
from pipeline.readers import formats, seam

VERSION = 1  # of the order, the names and the choice of what counts as a document
SEPARATOR = "!/"
DEPTH = 3  # files within files
MEMBERS = 10_000  # of an archive
MESSAGES = 100_000  # of a mailbox; and of all that is inside one file
# As for Office files (see readers.archives): no legitimate archive of 480 came near.
MAX_UNPACKED = 300_000_000
SUSPECT_UNPACKED = 30_000_000
SUSPECT_RATIO = 150

ARCHIVE = f"archive/{VERSION}"  # the reader of a file that only holds others
OF_MAILS = f"+inner/{VERSION}"  # after the reader of a mail whose attachments are documents
EXTENSIONS = frozenset(("zip", "tar", "tgz", "tbz2", "tbz", "txz", "gz", "bz2", "xz"))
MAILS = ("eml", "msg", "mbox")
ONLY_HOLD = ("zip", "tar", "gz", "bz2", "xz", "mbox")  # kinds without a text of their own
_PACKED = ("zip", "tar", "gz", "bz2", "xz")

_NAME_CHARS = 200  # of a folder or file in an archive
_FOLDERS = 32
_LITTER = ("__MACOSX",)  # what macOS puts beside the files


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file inside another. `name`: as written there; `size`: bytes, as declared; `load`: its bytes, or
    DocumentError.
    """

    name: str
    size: int
    load: Callable[[], bytes]


At = tuple[int, int]  # which member of the file, and which of the documents in that: 0 is the member itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A part of a file's documents, as much as one call reads: a large archive takes many calls.

    Attributes:
        start: the first one. skip: those that must not be opened.
        unpacked, members: bytes and number of what was taken from the archives inside members before `start`.
        allow: bytes that `start` is known to have.
        seconds: of a processor, after which it is over.
        content_hash: of the file, which must not have changed since the turn before; "" in the first.
    """

    start: At = (0, 0)
    skip: frozenset[At] = frozenset()
    unpacked: int = 0
    members: int = 0
    allow: int = 0
    seconds: float = 5.0
    content_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A document inside a file, or why there is none. `path`: below the file, after its "!/"."""

    at: At
    path: str
    size: int
    data: bytes = b""
    error: errors.DocumentError | None = None


def may_be_archive(name: str) -> bool:
    """By the extension alone."""
    return formats.extension(name) in EXTENSIONS


def may_hold(name: str) -> bool:
    """Whether a file of this name may have documents inside, whatever the settings."""
    return may_be_archive(name) or formats.extension(name) in ("eml", "msg", "mbox", "mbx")


def split(uri: str) -> tuple[str, str]:
    """A uri as the file's and the path inside it; "" for a file itself."""
    file, _, inside = uri.partition(SEPARATOR)
    return file, inside


def safe_name(name: str) -> str:
    """`name` without what leads elsewhere or cannot be shown: "..", "/" at the start, drives, control characters.

    "" where nothing is left.
    """
    cleaned = "".join(char if unicodedata.category(char) not in ("Cc", "Cs") else "_" for char in name)
    parts = [part.strip() for part in cleaned.replace("\\", "/").split("/")]
    if len(parts[0]) == 2 and parts[0][1] == ":" and parts[0][0].isalpha():
        parts = parts[1:]
    kept = [_short(part) for part in parts if part not in ("", ".", "..")]
    # The separator is ours: no name inside a file may hold it.
    return "/".join(f"{part[:-1]}_" if part.endswith("!") else part for part in kept[-_FOLDERS:-1]) + (
        ("/" if len(kept) > 1 else "") + kept[-1] if kept else ""
    )


def _short(part: str) -> str:
    stem, dot, ending = part.rpartition(".")
    if len(part) <= _NAME_CHARS:
        return part
    return f"{stem[: _NAME_CHARS - 20]}.{ending}" if dot and len(ending) < 16 else part[:_NAME_CHARS]


def is_litter(name: str) -> bool:
    """Whether `name` is of what programs leave in archives: hidden files, as in a folder, and macOS's doubles."""
    return any(part.startswith(".") or part in _LITTER for part in name.split("/"))


def named(members: Iterable[Member]) -> Iterator[Member]:
    """The members under safe names, no two alike: the second of a name is "a (2).md"."""
    taken: set[str] = set()
    counts: dict[str, int] = {}
    for member in members:
        name = wanted = safe_name(member.name)
        if not name:
            continue
        while name in taken:
            counts[wanted] = counts.get(wanted, 1) + 1
            name = _numbered(wanted, counts[wanted])
        taken.add(name)
        yield replace(member, name=name)


def _numbered(name: str, number: int) -> str:
    folder, slash, base = name.rpartition("/")
    stem, dot, ending = base.rpartition(".")
    return f"{folder}{slash}" + (f"{stem} ({number}).{ending}" if dot and stem else f"{base} ({number})")


class Walk:
    """The documents inside a file, in order. One call of `run` for each."""

    def __init__(
        self,
        turn: Turn,
        *,
        kind_of: Callable[[bytes, str], str],
        known: Callable[[str], bool],
        enter: Callable[[At, str], bool] = lambda at, path: True,
        over: Callable[[int], bool] = lambda size: False,
    ) -> None:
        """`kind_of`: which kind of container bytes of a name are ("": none); `known`: whether a name is of a document
        or container; `enter`: told before anything is opened, and may refuse; `over`: whether the turn is over before
        a member of so many bytes.
        """
        self._turn = turn
        self._kind_of = kind_of
        self._known = known
        self._enter = enter
        self._over = over
        self._at: At = turn.start
        self._unpacked = turn.unpacked
        self._members = turn.members
        self._begun = False
        self.passed = 0  # members of kinds that no reader knows
        self.rest: Turn | None = None  # what is left when the turn was over

    def run(self, data: bytes, kind: str, name: str) -> Iterator[Found]:
        """What is in `data`, which is of `kind`.

        Raises:
            DocumentError: it cannot be opened, or holds more than it may (damaged, zip_bomb, too_large).
        """
        with seam.one_error("the reader of what is inside files"):
            members = self._opened(data, kind, name)
        first = self._turn.start[0]
        if self._turn.start != (0, 0):
            self.passed = 0  # counted in the first turn
        own = (self._unpacked - self._turn.unpacked, self._members - self._turn.members)
        for top in range(first, len(members)):
            so_far = (self._unpacked - own[0], self._members - own[1])
            self._at = (top, 0)
            yield from self._member(members[top], "", 1)
            if self.rest is not None:
                self.rest = replace(self.rest, unpacked=so_far[0], members=so_far[1])
                return

    def _member(self, member: Member, prefix: str, depth: int) -> Iterator[Found]:
        path, at = prefix + member.name, self._at
        self._at = (at[0], at[1] + 1)
        if at in self._turn.skip:
            return
        mine = at >= self._turn.start
        if mine and self._begun and self._over(member.size):
            self.rest = replace(self._turn, start=at, allow=member.size)
            return
        if not self._enter(at, path):
            return
        self._begun = self._begun or mine
        passed = self.passed
        try:
            with seam.one_error("the reader of what is inside files"):
                data = member.load()
                kind = self._kind_of(data, member.name)
                below = self._below(data, kind, member.name, depth) if kind else []
        except errors.DocumentError as error:
            if mine:
                yield Found(at=at, path=path, size=member.size, error=error)
            return
        if not mine:
            self.passed = passed  # counted in an earlier turn
        elif kind not in ONLY_HOLD:
            yield Found(at=at, path=path, size=len(data), data=data)
        for one in below:
            if self.rest is not None:
                return
            yield from self._member(one, path + SEPARATOR, depth + 1)

    def _below(self, data: bytes, kind: str, name: str, depth: int) -> Sequence[Member]:
        if depth < DEPTH:
            return self._opened(data, kind, name)
        if kind in ONLY_HOLD:
            raise errors.DocumentError("too_deep", f"a file within files, deeper than {DEPTH}", "Unpack some of it.")
        return []  # a mail: its own text is read

    def _opened(self, data: bytes, kind: str, name: str) -> Sequence[Member]:
        """What is in `data`, its limits checked before any of it is unpacked."""
        found = list(named(_listed(data, kind, name, MAX_UNPACKED - self._unpacked)))
        members = [one for one in found if not is_litter(one.name) and self._known(one.name)]
        self.passed += len(found) - len(members)
        limit = MEMBERS if kind in _PACKED else MESSAGES
        if len(members) > limit or self._members + len(members) > MESSAGES:
            raise errors.DocumentError("too_large", f"{len(members):,} documents inside, more than {limit:,}")
        self._members += len(members)
        if kind in _PACKED:
            unpacked = sum(member.size for member in members)
            check_size(len(data), unpacked, MAX_UNPACKED - self._unpacked)
            self._unpacked += unpacked
        return members


def check_size(packed: int, unpacked: int, limit: int) -> None:
    """Refuse what unpacks to more than it may.

    Raises:
        DocumentError: zip_bomb.
    """
    if unpacked > limit or (unpacked > SUSPECT_UNPACKED and unpacked > SUSPECT_RATIO * packed):
        raise errors.DocumentError("zip_bomb", f"{packed:,} bytes that unpack to {unpacked:,} or more")


def _listed(data: bytes, kind: str, name: str, limit: int) -> Iterable[Member]:
    if kind == "eml":
        from pipeline.readers import mail

        return mail.attachments(data)
    if kind == "mbox":
        from pipeline.readers import mail

        return mail.messages(data)
    if kind == "msg":
        from pipeline.readers import unstructured_

        return unstructured_.attachments(data)
    from pipeline.readers import unpack

    return unpack.members(data, kind, name, limit)
