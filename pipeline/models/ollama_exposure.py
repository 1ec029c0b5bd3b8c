"""Whether an Ollama server lets others in: asked of the server itself, by two harmless requests for its version.

Ollama answers a page of another origin only if OLLAMA_ORIGINS admits it (gin's CORS: 403 otherwise), and a request that
names another host only if it does not listen on loopback alone (`allowedHostsMiddleware` in server/routes.go lets
everything pass then; it is what keeps DNS rebinding out).
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from pipeline.models import transport

FOREIGN = "pipeline-doctor.invalid"  # RFC 2606: nobody's; not .local, .localhost or .internal, which Ollama admits


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """`any_origin`: web pages may use it; `any_host`: it asks for no name (meaningful on loopback alone)."""

    any_origin: bool
    any_host: bool


async def probe(url: str, *, timeout_s: float = 5.0) -> Exposure:
    """How open the server is.

    Raises:
        ServerUnreachable, TransientFault, ServerRefused: it does not answer.
    """
    name = f"Ollama at {url}"
    async with transport.client(url, connect_timeout_s=timeout_s) as client, transport.deadline(name, timeout_s):
        with transport.translated(name, "Start it with `ollama serve`."):
            page = await client.get("/api/version", headers={"Origin": f"https://{FOREIGN}"})
            named = await client.get("/api/version", headers={"Host": FOREIGN})
    allowed = page.headers.get("Access-Control-Allow-Origin", "")
    return Exposure(any_origin=allowed in ("*", f"https://{FOREIGN}"), any_host=named.status_code == httpx.codes.OK)
