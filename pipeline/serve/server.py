"""The socket and the server's life. Knows addresses and uvicorn; of the service only how to create it.

Beyond loopback a key is needed: the documents of a whole folder would else be open to everybody on the network.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

import uvicorn

from pipeline import config, errors
from pipeline.serve import app, guard
from pipeline.serve.keys import Keys
from pipeline.serve.patience import ImpatientProtocol

STOP_S = 5  # for requests under way, when the server is stopped


def serve(settings: config.Settings, announce: Callable[[str], None]) -> None:
    """Serve until the process is told to stop (SIGINT, SIGTERM). `announce` gets the URL once connections are taken.

    Raises:
        UsageError: an address beyond loopback without a key, or one that cannot be listened at.
        KeyboardInterrupt: SIGINT, after a graceful stop.
    """
    with listen(settings) as listening:
        server = create(settings, listening)
        announce(url_of(listening))
        server.run(sockets=[listening])


def create(
    settings: config.Settings, listening: socket.socket, protocol: type[ImpatientProtocol] = ImpatientProtocol
) -> uvicorn.Server:
    """The server of the collections, to be run with `listening`."""
    hosts = guard.LOCAL_HOSTS | {_bracketed(settings.serve.host.lower())}
    local = _is_loopback(listening.getsockname()[0])
    door = guard.Door(
        keys=Keys.of(settings),
        hosts=hosts if local else frozenset(),
        most=settings.serve.concurrency,
        request_s=settings.serve.request_s,
    )
    return uvicorn.Server(
        uvicorn.Config(
            app.create(settings, door),
            http=protocol,  # h11: it leaves a path of "//retrieval" alone
            ws="none",
            lifespan="on",
            loop="asyncio",
            log_config=None,
            access_log=False,  # guard.access is ours
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=STOP_S,
        )
    )


def listen(settings: config.Settings) -> socket.socket:
    """A listening socket.

    Raises:
        UsageError: see `serve`.
    """
    host, port = settings.serve.host, settings.serve.port
    family, address = _resolve(host, port)
    if not _is_loopback(address[0]) and not Keys.of(settings).required:
        raise errors.UsageError(
            f"{host} can be reached from other machines, and no API key is set.",
            "Make one with `pipeline serve key add NAME`, or listen at 127.0.0.1.",
        )
    try:
        return socket.create_server(address, family=family)
    except OSError as error:
        raise errors.UsageError(
            f"Cannot listen at {host}, port {port}: {error.strerror or error}.", "Choose another: --port N (0: any)."
        ) from error


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """IPv4 first: "localhost" is often both, and clients try 127.0.0.1."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise errors.UsageError(
            f"{host} is not an address of this machine: {error.strerror}.", "Check --host."
        ) from error
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, (str(address[0]), int(address[1]))


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def url_of(listening: socket.socket) -> str:
    """A URL for this machine: an address that stands for all of them is told as loopback."""
    host, port = listening.getsockname()[:2]
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not listened at
    return f"http://{_bracketed(local)}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
