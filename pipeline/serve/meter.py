"""What the service did, for Prometheus: requests by route and status, how long they took, how many are under way, what
was refused, and which publication of each collection is open. No label holds a question, a path of a document or a key.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Dify gives up after 5 s, an answer of a model may take minutes.
_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Meter:
    """The figures of one server, in a registry of its own: two servers in a process do not add up."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "pipeline_http_requests", "Requests answered.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "pipeline_http_request_duration_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._refused = Counter("pipeline_http_refused", "Requests not let in.", ["reason"], registry=self._registry)
        self.under_way = Gauge("pipeline_http_requests_under_way", "Being answered now.", registry=self._registry)
        self._passages = Gauge(
            "pipeline_collection_passages", "In the publication that is open.", ["collection"], registry=self._registry
        )
        self._generation = Gauge(
            "pipeline_collection_snapshot",
            "Number of the snapshot that is open.",
            ["collection"],
            registry=self._registry,
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request came to its end. `route`: a path with the names of its parameters, of which there are few."""
        known = method if method in ("GET", "POST", "HEAD", "OPTIONS") else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def refused(self, reason: str) -> None:
        """A request was not let in; `reason`: one word of ours."""
        self._refused.labels(reason).inc()

    def opened(self, collection: str, snapshot: int, passages: int) -> None:
        """A publication was opened."""
        self._generation.labels(collection).set(snapshot)
        self._passages.labels(collection).set(passages)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._registry)
