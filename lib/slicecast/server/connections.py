"""Connections that nobody uses end: uvicorn waits for ever for a request that does not come, or not to its end."""

import asyncio
import socket
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

IDLE_S = 60.0  # How long a connection waits for a request's headers, or for the next bytes of its body
VANISHED_S = 60  # After so long without a byte the system asks whether the other side is still there


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that ends a connection whose client keeps it waiting; an answer may take as long as it takes."""

    idle_s: ClassVar[float] = IDLE_S
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        _notice_vanished(transport.get_extra_info("socket"))
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Go on waiting; bytes of headers that come one by one do not prolong it."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self._waiting is not None:
            self._waiting.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = self.loop.call_later(self.idle_s, self._end_if_idle)

    def _end_if_idle(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        if answering:
            self._wait()
        else:
            self.transport.abort()


def _notice_vanished(connection: socket.socket | None) -> None:
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, VANISHED_S)
