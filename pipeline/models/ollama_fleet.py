"""Which Ollama servers an embedder begins with, and which it starts: ollama.hosts, OLLAMA_HOST, ollama.local_servers.

Knows the settings and what answers; what is asked of a server is handed in.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline import config, errors
from pipeline.models import ollama_host, ollama_local, transport
from pipeline.models.ollama_client import Server
from pipeline.models.ollama_growth import Growth
from pipeline.models.ollama_local import LocalServers
from pipeline.models.resolve import Choice

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Growth:
    """`count` servers to be started later."""

    count: int
    growth: Growth


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The servers of an embedder; those among them that this program started, and those that it will."""

    servers: list[Server]
    local: LocalServers | None = None
    growth: _Growth | None = None

    @property
    def size(self) -> int:
        """How many there are or will be."""
        return len(self.servers) + (self.growth.count if self.growth is not None else 0)

    async def aclose(self) -> None:
        await close(self.servers)
        if self.local is not None:
            await self.local.aclose()


async def with_fleet(
    settings: config.Settings,
    environment: Mapping[str, str],
    bulk: bool,
    build: Callable[[Fleet], Awaitable[Choice]],
) -> Choice:
    """What `build` makes of the servers; they are closed and stopped where it fails.

    Begins with what answers already: `ollama.hosts` (OLLAMA_HOST, where the command line filled them in), or whoever
    listens at Ollama's own port. Where nobody does, and local servers are asked for, with one of those; a run starts
    the others when it has worked for a while (ollama_growth.py). Named hosts come besides; one that was found is one of
    as many as shall run here, since each holds the model in memory.
    """
    wanted = settings.ollama
    usual = ollama_host.server_urls(wanted, environment)
    try:
        return await _building(
            Fleet(
                servers=servers(settings, usual),
                growth=_growth(settings, environment, bulk, 0 if wanted.hosts or not _is_here(usual) else 1),
            ),
            build,
        )
    except errors.ModelError as error:
        if not wanted.local_servers or (wanted.hosts and not isinstance(error, errors.ServerUnreachable)):
            raise
        log.info("%s Starting a server.", error.message)
    local = await ollama_local.start(1, environment)
    others = usual if wanted.hosts and bulk else ()
    fleet = Fleet(
        servers=servers(settings, (*local.urls, *others)), local=local, growth=_growth(settings, environment, bulk, 1)
    )
    try:
        return await _building(fleet, build)
    except errors.ModelMissing as error:
        raise errors.ModelMissing(
            error.message,
            f"{error.remedy} Servers that this program starts look into OLLAMA_MODELS (unset: ~/.ollama/models); where "
            "Ollama runs as a service it is often another folder, such as /usr/share/ollama/.ollama/models.",
        ) from error


def _is_here(urls: Sequence[str]) -> bool:
    """Whether the first of them runs on this machine: then it is one of as many as there shall be here."""
    return transport.is_loopback(urls[0])


def _growth(settings: config.Settings, environment: Mapping[str, str], bulk: bool, there: int) -> _Growth | None:
    """The local servers of a run that are not `there` yet."""
    count = settings.ollama.local_servers - there if bulk else 0
    if count <= 0:
        return None
    growth = Growth(lambda: ollama_local.start(count, environment), lambda url: server(settings, url))
    return _Growth(count=count, growth=growth)


async def _building(fleet: Fleet, build: Callable[[Fleet], Awaitable[Choice]]) -> Choice:
    try:
        return await build(fleet)
    except BaseException:
        await fleet.aclose()
        raise


def servers(settings: config.Settings, urls: Sequence[str]) -> list[Server]:
    return [server(settings, url) for url in urls]


def server(settings: config.Settings, url: str) -> Server:
    return Server(url, connect_timeout_s=settings.ollama.connect_timeout_s)


async def close(servers: Sequence[Server]) -> None:
    for server in servers:
        await server.aclose()
