"""Gets a clip: from an upload, which is streamed to disk, or from a local file that the server may read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from io import FileIO
from pathlib import Path
from urllib.parse import unquote, urlsplit

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from skyshore.domain.errors import InvalidTask, NotFound, PayloadTooLarge, PermissionDenied
from skyshore.runtime.disk import disk_errors

WRITE_BYTES = 1024 * 1024
"""The file is written in blocks of this size, so an upload needs no more memory than that."""
FIELDS_BYTES = 64 * 1024
"""Limit of all other form fields together."""
LONGEST_BOUNDARY = 70
"""Bytes, as RFC 2046 says."""
HEADER_BYTES = 16 * 1024
"""Limit of the headers of one part."""
FILE_FIELD = "file"


class UploadForm:
    """Parses a multipart body. Writes the file to `target` and puts the short fields into `fields`."""

    def __init__(
        self, content_type: str, target: Path, limit_bytes: int, room: Callable[[int], None] = lambda size_bytes: None
    ) -> None:
        """Raises InvalidTask when `content_type` names no boundary. `room` raises if a file of a size has no room."""
        _, options = parse_options_header(content_type)
        if not 1 <= len(options.get(b"boundary", b"")) <= LONGEST_BOUNDARY:
            raise InvalidTask(
                f"the multipart body needs a boundary of 1 to {LONGEST_BOUNDARY} bytes; let the client set it",
                param="content-type",
            )
        self.fields: dict[str, str] = {}
        self.file_bytes = 0
        self._target, self._limit_bytes, self._room = target, limit_bytes, room
        self._header = [b"", b""]
        self._part_headers: dict[bytes, bytes] = {}
        self._name = ""
        self._header_bytes = 0
        self._value = bytearray()
        self._fields_bytes = 0
        self._pending = bytearray()
        self._complete = False
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._part_begin,
                "on_header_field": lambda data, start, end: self._header_data(0, data[start:end]),
                "on_header_value": lambda data, start, end: self._header_data(1, data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": lambda data, start, end: self._part_data(data[start:end]),
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    async def read(self, body: AsyncIterator[bytes]) -> None:
        """Read the whole body. The file is durable on disk when this returns.

        Raises:
            InvalidTask: the form is malformed, incomplete or without a file.
            PayloadTooLarge: the file or the fields are over their limits.
            DiskFull, DiskUnavailable: the disk does not take the file.
        """
        with disk_errors():
            file = await asyncio.to_thread(self._target.open, "wb", buffering=0)
        try:
            async for chunk in body:
                self._feed(chunk)
                if len(self._pending) >= WRITE_BYTES:
                    await self._write(file)
            self._feed(b"")
            await self._write(file)
            with disk_errors():
                await asyncio.to_thread(os.fsync, file.fileno())
        finally:
            await asyncio.to_thread(file.close)
        if not self._complete:
            raise InvalidTask("the upload is incomplete; send it again", param=FILE_FIELD)
        if not self.file_bytes:
            raise InvalidTask(f"the form has no clip in its field '{FILE_FIELD}'", param=FILE_FIELD)

    def _feed(self, chunk: bytes) -> None:
        try:
            if chunk:
                self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidTask(f"the multipart body cannot be read: {error}") from error

    async def _write(self, file: FileIO) -> None:
        pending, self._pending = self._pending, bytearray()
        with disk_errors():
            await asyncio.to_thread(self._write_all, file, pending)

    def _write_all(self, file: FileIO, data: bytearray) -> None:
        self._room(self.file_bytes)
        left = memoryview(data)
        while left:  # a disk that is nearly full takes a part, and refuses the rest
            left = left[file.write(left) or 0 :]

    def _part_begin(self) -> None:
        self._part_headers, self._value, self._header_bytes = {}, bytearray(), 0

    def _header_data(self, at: int, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > HEADER_BYTES:
            raise InvalidTask(f"the headers of a part of the form are over {HEADER_BYTES} bytes")
        self._header[at] += data

    def _header_end(self) -> None:
        self._part_headers[self._header[0].lower()] = self._header[1]
        self._header = [b"", b""]

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._part_headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")

    def _part_data(self, data: bytes) -> None:
        if self._name == FILE_FIELD:
            self.file_bytes += len(data)
            if self.file_bytes > self._limit_bytes:
                raise PayloadTooLarge(f"the clip is over {self._limit_bytes} bytes; send it in parts", param=FILE_FIELD)
            self._pending += data
            return
        self._fields_bytes += len(data)
        if self._fields_bytes > FIELDS_BYTES:
            raise PayloadTooLarge(f"the form's fields are over {FIELDS_BYTES} bytes", param=self._name)
        self._value += data

    def _part_end(self) -> None:
        if self._name and self._name != FILE_FIELD:
            self.fields[self._name] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self._complete = True


def refuse_oversize(headers: Mapping[str, str], limit_bytes: int) -> None:
    """Check the Content-Length before a byte is read. Raises PayloadTooLarge."""
    if expected_bytes(headers) > limit_bytes + FIELDS_BYTES:
        raise PayloadTooLarge(f"the upload is over {limit_bytes} bytes; send it in parts", param=FILE_FIELD)


def expected_bytes(headers: Mapping[str, str]) -> int:
    """The Content-Length; 0 if there is none."""
    length = headers.get("content-length", "")
    return int(length) if length.isdigit() else 0


def local_clip(url: str, root: Path | None) -> Path:
    """The file of a file:// URL. Symbolic links are resolved before the folder is checked.

    Raises:
        InvalidTask: not a file:// URL.
        PermissionDenied: outside `root`, or `root` is None.
        NotFound: no such file.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidTask(f"the URL cannot be read: {error}", param="url") from error
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise InvalidTask("only file:// URLs of this machine are allowed; upload other clips", param="url")
    if root is None:
        raise PermissionDenied("this server reads no local files; upload the clip instead", param="url")
    name = unquote(parts.path)
    if "\0" in name:
        raise InvalidTask("the URL contains a zero byte", param="url")
    try:
        path, root = Path(name).resolve(), root.resolve()
        is_file = path.is_relative_to(root) and path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a name that is too long, or links in a circle
        raise InvalidTask("the URL names no path that can exist", param="url") from error
    if not path.is_relative_to(root):
        raise PermissionDenied("the file is outside the folder that this server may read", param="url")
    if not is_file:
        raise NotFound(f"no file '{path.relative_to(root)}' in the folder that this server may read", param="url")
    return path
