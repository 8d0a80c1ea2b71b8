"""`/metrics`: what the server does, for Prometheus. Names of routes, never of patients or users."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slicecast.inference.queue import QueueStats
from slicecast.inference.segment import SegmentService
from slicecast.server.security.limits import HttpMiddleware

BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

METHODS = frozenset(("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"))


@dataclass(frozen=True, slots=True)
class Metrics:
    """The server's own counters."""

    registry: CollectorRegistry  # what `/metrics` shows
    requests: Counter  # by method, route and status
    seconds: Histogram  # from the request to the end of the answer, by route
    session_slices: Counter  # of sessions' propagations, by what became of them: recomputed or reused

    @staticmethod
    def of(service: Callable[[], SegmentService | None]) -> "Metrics":
        """Make the counters of one application.

        Args:
            service: gives the service whose queue and caches are shown; None before there is one.
        """
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(ServiceCollector(service))
        return Metrics(
            registry,
            Counter("slicecast_requests", "Answered requests", ["method", "route", "status"], registry=registry),
            Histogram(
                "slicecast_request_seconds",
                "Until the end of the answer",
                ["route"],
                buckets=BUCKETS_S,
                registry=registry,
            ),
            Counter("slicecast_session_slices", "Slices of sessions' propagations", ["how"], registry=registry),
        )


class CountRequests(HttpMiddleware):
    """Middleware that counts requests under their route's pattern, so that ids do not become series."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        super().__init__(app)
        self._metrics = metrics

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        start, status = time.perf_counter(), ["500"]

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in METHODS else "other"  # anybody can send any word
            self._metrics.requests.labels(method, route, status[0]).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)


class ServiceCollector(Collector):
    """Reads the service's counters when asked.

    Args:
        service: gives it, or None before there is one.
    """

    def __init__(self, service: Callable[[], SegmentService | None]) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of the service."""
        service = self._service()
        if service is None:
            return
        yield from _queue_metrics("jobs", "Requests", service.queue.jobs.stats())
        yield from _queue_metrics("steps", "Model calls", service.step_stats())
        yield _slices(service)
        yield from _cache_metrics(service)
        yield from _worker_metrics(service)
        yield from _device_metrics()

    def describe(self) -> list[Metric]:
        """Name nothing before the service is there."""
        return []


def _queue_metrics(name: str, what: str, stats: QueueStats) -> Iterator[Metric]:
    yield GaugeMetricFamily(f"slicecast_{name}_working", f"{what} in work now", value=stats.working)
    waiting = GaugeMetricFamily(f"slicecast_{name}_waiting", f"{what} waiting now", labels=["urgency"])
    taken = CounterMetricFamily(f"slicecast_{name}", f"{what} taken up", labels=["urgency"])
    waited = CounterMetricFamily(f"slicecast_{name}_waited_seconds", f"{what} had waited", labels=["urgency"])
    for priority in stats.taken:
        label = [priority.name.lower()]
        waiting.add_metric(label, stats.waiting[priority])
        taken.add_metric(label, stats.taken[priority])
        waited.add_metric(label, stats.waited_s[priority])
    yield from (waiting, taken, waited)
    yield CounterMetricFamily(f"slicecast_{name}_refused", f"{what} that found the queue full", value=stats.refused)


def _slices(service: SegmentService) -> Metric:
    work = service.work
    family = CounterMetricFamily("slicecast_slices", "Slices that went through the model", labels=["how"])
    for how in ("encoded", "prompted", "tracked"):
        family.add_metric([how], getattr(work, how))
    return family


def _cache_metrics(service: SegmentService) -> Iterator[Metric]:
    stats = service.cache_stats()
    asked = CounterMetricFamily("slicecast_cache_slices", "Encoded slices asked for", labels=["found"])
    asked.add_metric(["hit"], stats.hits)
    asked.add_metric(["miss"], stats.misses)
    yield asked
    yield CounterMetricFamily("slicecast_cache_evictions", "Encoded slices dropped for room", value=stats.evictions)
    yield GaugeMetricFamily("slicecast_cache_entries", "Encoded slices held", value=stats.entries)
    yield GaugeMetricFamily("slicecast_cache_bytes", "Bytes of encoded slices held", value=stats.nbytes)


def _worker_metrics(service: SegmentService) -> Iterator[Metric]:
    """Yield nothing where the server does the work itself."""
    ready = GaugeMetricFamily("slicecast_worker_ready", "Whether a worker process takes requests", labels=["worker"])
    requests = GaugeMetricFamily("slicecast_worker_requests", "Requests that a worker has in work", labels=["worker"])
    starts = CounterMetricFamily("slicecast_worker_restarts", "Ends of a worker's process", labels=["worker"])
    memory = GaugeMetricFamily("slicecast_worker_memory_bytes", "Resident memory of a worker", labels=["worker"])
    for worker in service.workers:
        name = [str(worker.number)]
        ready.add_metric(name, worker.ready)
        requests.add_metric(name, worker.pending)
        starts.add_metric(name, worker.restarts)
        memory.add_metric(name, worker.resident_bytes)
    if service.workers:
        yield from (ready, requests, starts, memory)


def _device_metrics() -> Iterator[Metric]:
    if not torch.cuda.is_initialized():
        return
    held = GaugeMetricFamily("slicecast_device_memory_bytes", "Memory in use on a device", labels=["device", "what"])
    for number in range(torch.cuda.device_count()):
        held.add_metric([f"cuda:{number}", "allocated"], torch.cuda.memory_allocated(number))
        held.add_metric([f"cuda:{number}", "reserved"], torch.cuda.memory_reserved(number))
    yield held
