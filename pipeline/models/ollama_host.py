"""OLLAMA_HOST as Ollama itself reads it (envconfig/config.go: Host, ConnectableHost, Var), and which servers the
settings mean."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping

from pipeline import config

log = logging.getLogger(__name__)
DEFAULT = "127.0.0.1"
DEFAULT_PORT = "11434"


def server_url(value: str) -> str:
    """The URL to connect to for a value of OLLAMA_HOST or `ollama.hosts`, such as "http://127.0.0.1:11434".

    Default scheme http and port 11434; `http://` without a port means 80, `https://` 443. An address that only a server
    can use (0.0.0.0, ::) and an empty one mean loopback. A port that is none is replaced by the default with a warning,
    as Ollama does.
    """
    text = value.strip().strip("\"'").strip()
    scheme, hostport, port = _scheme(text)
    hostport, slash, path = hostport.partition("/")
    host, port = _split(hostport, port)
    path = f"/{path.rstrip('/')}" if slash and path.rstrip("/") else ""
    return f"{scheme}://{_connectable(host)}:{port}{path}"


def _scheme(text: str) -> tuple[str, str, str]:
    """Scheme, the rest, and the port that goes with them."""
    scheme, found, rest = text.partition("://")
    if not found:
        return ("https", text, "443") if text == "ollama.com" else ("http", text, DEFAULT_PORT)
    return scheme, rest, {"http": "80", "https": "443"}.get(scheme, DEFAULT_PORT)


def _split(hostport: str, default_port: str) -> tuple[str, str]:
    """Go's net.SplitHostPort with Ollama's fall-back: what it cannot split is a host without a port."""
    bare = hostport.strip("[]")
    if _address(bare) is not None:
        return bare, default_port  # ::1 without brackets is an address, not host and port
    host, colon, port = hostport.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon:
        return hostport or DEFAULT, default_port
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        log.warning("OLLAMA_HOST: %r is not a port, using %s", port, default_port)
        port = default_port
    return host, port


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _connectable(host: str) -> str:
    address = _address(host)
    if address is None:
        return host or DEFAULT  # ":1234" listens everywhere; a client goes to loopback
    if address.is_unspecified:
        return DEFAULT if address.version == 4 else "[::1]"
    return str(address) if address.version == 4 else f"[{address}]"


def server_urls(settings: config.OllamaSettings, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The servers to use: `ollama.hosts`, else OLLAMA_HOST, else this machine's. Each once, in order."""
    values = settings.hosts or (environment.get("OLLAMA_HOST", ""),)
    return tuple(dict.fromkeys(server_url(value) for value in values))
