"""What to type into Dify, from settings alone."""

from __future__ import annotations

from pipeline import config

DOCKER_HOST = "host.docker.internal"


def dify(settings: config.Settings, key: str = "") -> str:
    """Text for people. `key`: as given on the command line; "" where only hashes are known, or none is needed."""
    serve = settings.serve
    shown = key or (
        "the key that `pipeline serve key add` printed"
        if serve.keys or settings.clients
        else "anything, such as: local"
    )
    return f"""\
In Dify: Knowledge > External Knowledge API > Add an External Knowledge API
  Name            pipeline
  API Endpoint    http://{DOCKER_HOST}:{serve.port}
  API Key         {shown}

Then: Knowledge > Create Knowledge > Connect to an External Knowledge Base
  External Knowledge API    pipeline
  External Knowledge ID     {settings.collection}
  Top K 5; Score Threshold off, or about 0.3: scores are cosines, and most good passages lie between 0.3 and 0.8

Dify 1.14.2 and newer refuses private addresses until they are allowed. Into Dify's docker/.env:
  SSRF_PROXY_ALLOW_PRIVATE_DOMAINS={DOCKER_HOST}
  SSRF_PROXY_ALLOW_PRIVATE_IPS=192.168.65.254/32
and then, in that folder: docker compose up -d
(192.168.65.254 is {DOCKER_HOST} in Docker Desktop; elsewhere this tells the address:
  docker compose exec ssrf_proxy getent hosts {DOCKER_HOST})

On Linux a container cannot reach 127.0.0.1 of its host. Make a key (pipeline serve key add dify), start
  pipeline serve --host 172.17.0.1
and give Dify's services api, worker and ssrf_proxy in docker-compose.yaml
  extra_hosts: ["{DOCKER_HOST}:host-gateway"]
"""
