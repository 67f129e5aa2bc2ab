"""What an address gives, byte by byte, from a server that may be slow, broken or hostile."""

from __future__ import annotations

import io
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from typing import Any

LEAST_RATE = 1000
"""Slowest answer that is waited for, in bytes per second, averaged over `PERIOD`."""

PERIOD = 60.0
"""Seconds over which the rate of an answer is measured."""

TIMEOUT = 30.0
"""Seconds without a byte after which an answer has ended."""

_PIECE = 1 << 16


def pieces_of(url: str, most: int, announce: Callable[[int | None], Any]) -> Iterator[bytes]:
    """The content at `url`, in pieces; `announce` is told its length beforehand, or None where the server does not say.

    Redirects are followed to http and https only. Raises OSError, ValueError or HTTPException for an answer that is
    not the content, is longer than `most` bytes, slower than `LEAST_RATE` or cut short.
    """
    opener = urllib.request.build_opener(_HTTP, _HTTPS, _Redirects)
    request = urllib.request.Request(url, headers={"User-Agent": "minidl"})
    try:
        response = opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()  # it is the response, too
        raise
    with response:
        length = response.headers.get("Content-Length")
        expected = None if length is None else int(length)
        if expected is not None and not 0 <= expected <= most:
            raise OSError(f"the server announces {expected:,} bytes; expected at most {most:,}")
        announce(expected)
        received = 0
        while received != expected and (piece := response.read(_PIECE)):
            received += len(piece)
            if received > most:
                raise OSError(f"the answer is longer than {most:,} bytes")
            yield piece
        if expected is not None and received < expected:
            raise OSError(f"the connection ended after {received:,} of {expected:,} bytes")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise OSError(f"it redirects to {newurl}, which is neither http nor https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except BaseException:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Paced:
    """Opens connections whose answers, headers included, must not be slower than `LEAST_RATE`."""

    def do_open(self, http_class: Callable[..., Any], req: Any, **options: Any) -> Any:
        def connect(*arguments: Any, **keywords: Any) -> Any:
            connection = http_class(*arguments, **keywords)
            connection.response_class = _PacedResponse
            return connection

        return super().do_open(connect, req, **options)  # type: ignore[misc]


class _HTTP(_Paced, urllib.request.HTTPHandler):
    pass


class _HTTPS(_Paced, urllib.request.HTTPSHandler):
    pass


class _PacedResponse(HTTPResponse):
    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self.fp: Any = io.BufferedReader(_PacedStream(self.fp.detach()))


class _PacedStream(io.RawIOBase):
    """A socket's stream that raises OSError when too little has come."""

    def __init__(self, stream: Any):
        self.stream, self.start, self.received = stream, time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Any:
        count = self.stream.readinto(buffer)
        self.received += count or 0
        seconds = time.monotonic() - self.start
        if seconds > PERIOD:
            if self.received < LEAST_RATE * seconds:
                raise OSError(f"only {self.received:,} bytes came in {seconds:.0f} s; {LEAST_RATE:,} per second are "
                              "expected at least")
            self.start, self.received = time.monotonic(), 0
        return count

    def close(self) -> None:
        self.stream.close()
        super().close()
