"""What this process's environment and the settings tell of Ollama without asking it: proxies, exposure, keep-alive.

A server's own variables are seen only where they stand in this environment too; a check that cannot see says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from pipeline import config
from pipeline.doctor_check import Check
from pipeline.models import ollama_host, transport

# A model that is unloaded between two stages is loaded again: minutes on a slow disk.
KEEP_ALIVE_S = 30 * 60
CHAT_CONTEXT = 8192  # tokens; a larger window of the chat model can push the embedding model out of memory


def proxies(settings: config.Settings, env: Mapping[str, str]) -> Iterator[Check]:
    """This program never asks a proxy for loopback; `ollama` and `curl` do, unless NO_PROXY names it."""
    proxies = {name: env[name] for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy") if env.get(name)}
    excluded = (env.get("no_proxy") or env.get("NO_PROXY", "")).replace(" ", "").split(",")
    urls = ollama_host.server_urls(settings.ollama, env)
    captured = [url for url in urls if transport.is_loopback(url) and not _bypassed(url, excluded)]
    if proxies and captured:
        yield Check(
            level="warn",
            name="proxy",
            detail=f"{', '.join(sorted(proxies))} captures what other tools (not this one) send to {captured[0]}",
            remedy="export NO_PROXY=localhost,127.0.0.1,::1",
        )


def _bypassed(url: str, excluded: Sequence[str]) -> bool:
    host = url.partition("://")[2].partition("/")[0].rpartition(":")[0]
    return "*" in excluded or host in excluded or host.strip("[]") in excluded


def exposure(env: Mapping[str, str]) -> Iterator[Check]:
    """Variables that, where the server sees them too, open it to others."""
    host = env.get("OLLAMA_HOST", "").strip("\"' ").partition("://")[2] or env.get("OLLAMA_HOST", "").strip("\"' ")
    if host.startswith(("0.0.0.0", "[::]", "::", ":")) and not host.startswith("::1"):  # noqa: S104  found, not bound
        yield Check(
            level="warn",
            name="exposure",
            detail=f"OLLAMA_HOST={host}: a server started so listens to the whole network and checks no Host header",
            remedy="unset OLLAMA_HOST, or set it to 127.0.0.1, and restart `ollama serve`",
        )
    if "*" in (origin.strip() for origin in env.get("OLLAMA_ORIGINS", "").split(",")):
        yield Check(
            level="warn",
            name="exposure",
            detail="OLLAMA_ORIGINS=*: any web page that is open in a browser here may use the models",
            remedy="unset OLLAMA_ORIGINS, or name the pages that need it, and restart `ollama serve`",
        )


def settings_of_ollama(settings: config.Settings, env: Mapping[str, str]) -> Iterator[Check]:
    if 0 <= _seconds(settings.ollama.keep_alive) < KEEP_ALIVE_S:
        yield Check(
            level="warn",
            name="keep alive",
            detail=f"ollama.keep_alive = {settings.ollama.keep_alive}: the model may be unloaded between two stages",
            remedy='Set ollama.keep_alive = "30m" or more.',
        )
    if env.get("OLLAMA_NUM_PARALLEL", "1") not in ("", "0", "1"):
        yield Check(
            level="warn",
            name="parallel",
            detail="OLLAMA_NUM_PARALLEL does nothing for embeddings and multiplies the memory of chat",
            remedy="unset OLLAMA_NUM_PARALLEL; for more speed start a second `ollama serve`: --ollama-host twice",
        )
    window = env.get("OLLAMA_CONTEXT_LENGTH", "")
    if window.isdigit() and int(window) > CHAT_CONTEXT:
        yield Check(
            level="warn",
            name="context length",
            detail=f"OLLAMA_CONTEXT_LENGTH={window}: the chat model may push the embedding model out of memory",
            remedy=f"export OLLAMA_CONTEXT_LENGTH={CHAT_CONTEXT}, and restart `ollama serve`",
        )


def _seconds(duration: str) -> float:
    """Go's notation as `config.Duration` admits it; negative means for good."""
    if re.fullmatch(r"-?\d+", duration):
        return float(duration)
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h)", duration))
