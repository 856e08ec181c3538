"""Figures of a server in the format of Prometheus, for `GET /metrics`."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from .classifier import Classifier

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
OTHER = "other"  # paths that the server does not have, so that clients cannot add time series


class ServiceMetrics:
    """Counters of a server. `paths` are those that requests are counted by, `in_progress` returns the number of requests in progress."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, classifier: Classifier, paths: frozenset[str], in_progress: Callable[[], int]) -> None:
        self.paths, self.registry = paths, CollectorRegistry()
        Info("tlfast_model", "The classifier", registry=self.registry).info(
            {"run": classifier.run, "task": classifier.info.get("task", ""), "version": classifier.info.get("tlfast", "")}
        )
        self.requests = Counter("tlfast_requests", "Requests by path and status", ["path", "status"], registry=self.registry)
        self.seconds = Histogram("tlfast_request_seconds", "Seconds of a request by path", ["path"], buckets=BUCKETS, registry=self.registry)
        self.images = Counter("tlfast_images", "Classified images by label", ["label"], registry=self.registry)
        gauge = Gauge("tlfast_requests_in_progress", "Requests to /predict in progress", registry=self.registry)
        gauge.set_function(in_progress)
        for label in classifier.classes:  # so that each label has a value from the start
            self.images.labels(label)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        known = path if path in self.paths else OTHER
        self.requests.labels(known, str(status)).inc()
        self.seconds.labels(known).observe(seconds)

    def count_image(self, label: str) -> None:
        """Count an image that has been classified."""
        self.images.labels(label).inc()

    def render(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self.registry)
