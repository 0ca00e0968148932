"""POST requests to one HTTP server, a connection for each that is under way; connections are kept for the next ones."""

from __future__ import annotations

import asyncio
import ssl as tls
from urllib.parse import urlsplit

from picker.datalayer.http_reader import HttpReader, ReadError
from picker.endpoint import join_host_port

MAX_KEPT = 32
"""Idle connections; those of a burst beyond them are closed."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""A million token ids are 7 MB; pictures that a server answers with are larger, and of no use here."""


class RenderClient:
    """Speaks to `url`; its path is a prefix of all paths."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that cannot be used."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"'{url}' is not a URL: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"'{url}': expected http://HOST[:PORT] or https://HOST[:PORT]")
        if parts.query or parts.fragment or parts.username is not None or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError(f"'{url}': expected no blanks, credentials, query or fragment")
        self._host = parts.hostname
        self._port = port if port is not None else (443 if parts.scheme == "https" else 80)
        self._ssl = tls.create_default_context() if parts.scheme == "https" else None
        self._prefix = parts.path.rstrip("/")
        self._idle: list[HttpReader] = []

    async def post(self, path: str, body: bytes, timeout_s: float, *, authorization: str = "") -> bytes:
        """The body of the answer. Raises ReadError, also for an answer that is not 200; ValueError for credentials no header can hold."""
        reader = self._idle.pop() if self._idle else self._new_reader()
        answer: asyncio.Future[bytes | ReadError] = asyncio.get_running_loop().create_future()
        try:
            reader.read(answer.set_result, request=self._request(path, body, authorization), timeout_s=timeout_s)
            result = await answer
        except BaseException:
            reader.close()
            raise
        if len(self._idle) < MAX_KEPT:
            self._idle.append(reader)
        else:
            reader.close()
        if isinstance(result, ReadError):
            raise result
        return result

    def _new_reader(self) -> HttpReader:
        return HttpReader(self._host, self._port, path="/", ssl=self._ssl, max_body_bytes=MAX_ANSWER_BYTES)

    def _request(self, path: str, body: bytes, authorization: str) -> bytes:
        if not authorization.isascii() or not authorization.isprintable():
            raise ValueError("authorization: expected printable ASCII")
        credentials = f"Authorization: {authorization}\r\n" if authorization else ""
        head = (
            f"POST {self._prefix}{path} HTTP/1.1\r\nHost: {join_host_port(self._host, self._port)}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nAccept: application/json\r\nUser-Agent: fairlead\r\n{credentials}\r\n"
        )
        return head.encode() + body

    async def close(self) -> None:
        """Give up all idle connections."""
        readers, self._idle = self._idle, []
        for reader in readers:
            reader.close()
            await reader.wait_closed()
