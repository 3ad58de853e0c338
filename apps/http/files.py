"""Static files below a root: from a request's target to a reply with validators, ranges and a type.

What leaves the root is not found, whether by dots, by escapes or by symbolic links: a file is judged by where it was
when it was opened. Small files are kept in memory, in a cache bounded in bytes; a large one is opened for each request.
"""

import errno
import mimetypes
import os
import re
import stat
from collections import OrderedDict
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from mpserve.apps.http.conditions import Outcome, preconditions, requested_range
from mpserve.apps.http.parser import Refusal, Request
from mpserve.apps.http.replies import Reply, Span, http_date, not_found, refusal_reply, text_reply
from mpserve.dataplane.errors import SetupError

BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
SMALL_FILE_BYTES = 65536
ENTRY_OVERHEAD_BYTES = 1024
COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
FORBIDDEN = (errno.EACCES, errno.EPERM)
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Entry:
    """A file's metadata and, if it is small, its bytes."""

    __slots__ = ("signature", "length", "modified", "etag", "fields", "body")

    def __init__(self, path: str, status: os.stat_result, body: bytes | None) -> None:
        self.signature = signature(status)
        self.length = status.st_size
        self.modified = int(status.st_mtime)
        self.etag = b'"%x-%x"' % (status.st_mtime_ns, status.st_size)
        self.body = body
        validators = b"ETag: %b\r\nLast-Modified: %b\r\n" % (self.etag, http_date(self.modified))
        self.fields = b"Content-Type: %b\r\n%bAccept-Ranges: bytes\r\n" % (content_type(path), validators)

    @property
    def weight(self) -> int:
        """Bytes this entry is counted for in the cache."""
        return ENTRY_OVERHEAD_BYTES + len(self.body or b"")


class Files:
    """The site of the files below `root`, with `index` as the names that stand for a directory."""

    def __init__(self, root: str, index: list[str], cache_bytes: int) -> None:
        self.root = checked_root(root)
        self.index = index
        self.cache_bytes = cache_bytes
        self.cached_bytes = 0
        self._cache: OrderedDict[str, Entry] = OrderedDict()

    def respond(self, request: Request) -> Reply:
        """The reply to a GET or HEAD. A Span in it is open: whoever takes it closes it."""
        path = local_path(request.target)
        if isinstance(path, Refusal):
            return refusal_reply(path)
        try:
            return self._reply(request, path)
        except OSError as error:
            return failed(error)

    def _reply(self, request: Request, path: str) -> Reply:
        full = self.root + path
        status = os.stat(full)
        if stat.S_ISDIR(status.st_mode):
            if not path.endswith("/"):
                return moved(path + "/", request.target)
            full, status = self._index_of(full)
        entry, fd = self._open(full, status)
        try:
            reply = answer(entry, request, fd)
        except BaseException:
            if fd >= 0:
                os.close(fd)
            raise
        if fd >= 0 and not isinstance(reply.body, Span):
            os.close(fd)
        return reply

    def _index_of(self, directory: str) -> tuple[str, os.stat_result]:
        for name in self.index:
            try:
                return directory + name, os.stat(directory + name)
            except FileNotFoundError:
                continue
        raise FileNotFoundError(errno.ENOENT, "no index", directory)

    def _open(self, full: str, status: os.stat_result) -> tuple[Entry, int]:
        """The entry of a file, and an open descriptor where its bytes aren't in the entry (else -1)."""
        entry = self._cache.get(full)
        if entry is not None and entry.signature == signature(status) and entry.body is not None:
            self._cache.move_to_end(full)
            return entry, -1
        return self._load(full)

    def _load(self, full: str) -> tuple[Entry, int]:
        fd = open_below(self.root, full)
        try:
            status = os.fstat(fd)
            if status.st_size > SMALL_FILE_BYTES:
                return Entry(full, status, None), fd
            body = os.pread(fd, SMALL_FILE_BYTES, 0)
            entry = Entry(full, status, body)
            entry.length = len(body)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        self._keep(full, entry)
        return entry, -1

    def _keep(self, full: str, entry: Entry) -> None:
        """Put an entry into the cache and the least recently used ones out of it, until it fits."""
        old = self._cache.pop(full, None)
        self.cached_bytes += entry.weight - (old.weight if old else 0)
        self._cache[full] = entry
        while self.cached_bytes > self.cache_bytes:
            _, gone = self._cache.popitem(last=False)
            self.cached_bytes -= gone.weight


def checked_root(root: str) -> str:
    """The real path of the root directory; SetupError if it isn't one."""
    real = os.path.realpath(root)
    if not os.path.isdir(real):
        raise SetupError(f"root {root!r} is not a directory: give an existing one, as in --root ./public")
    if not os.access(real, os.R_OK | os.X_OK):
        raise SetupError(f"root {root!r} can't be read by this user: chmod it, or give another --root")
    return real.rstrip("/")


def local_path(target: bytes) -> str | Refusal:
    """A target's path, decoded and freed of dots (RFC 3986, 5.2.4): it starts with a slash and stays below it."""
    raw = target.partition(b"?")[0]
    if BAD_ESCAPE.search(raw):
        return Refusal(400, "the target has a malformed % escape")
    decoded = unquote_to_bytes(raw)
    if b"\0" in decoded:
        return Refusal(400, "the target has a NUL in it")
    parts: list[str] = []
    segments = os.fsdecode(decoded).split("/")
    for segment in segments:
        if segment == "..":
            if not parts:
                return Refusal(400, "the target leaves the root")
            parts.pop()
        elif segment not in ("", "."):
            parts.append(segment)
    slash = "/" if parts and segments[-1] in ("", ".", "..") else ""
    return "/" + "/".join(parts) + slash


def open_below(root: str, full: str) -> int:
    """Open a regular file that lies below root; FileNotFoundError if it is anything else or anywhere else.

    The kernel is asked where the opened file is, so no link swapped meanwhile can lead out. Not blocking: a pipe or a
    device in the tree must not hold the worker.
    """
    fd = os.open(os.path.realpath(full), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not os.readlink(f"/proc/self/fd/{fd}").startswith(root + "/"):
            raise FileNotFoundError(errno.ENOENT, "not a file below the root", full)
    except BaseException:
        os.close(fd)
        raise
    return fd


def signature(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file does."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def content_type(path: str) -> bytes:
    """The media type by a file's name. A compressed file is sent as what it is, not as an encoding of what is in it."""
    kind, encoding = mimetypes.guess_type(Path(path).name)
    if encoding is not None:
        kind = COMPRESSED.get(encoding, "application/octet-stream")
    kind = kind or "application/octet-stream"
    if kind.startswith("text/") or kind in ("application/javascript", "application/json"):
        kind += "; charset=utf-8"
    return kind.encode()


def answer(entry: Entry, request: Request, fd: int) -> Reply:
    """The reply to a request for a file: 200, 206, 304, 412 or 416."""
    outcome = preconditions(request.fields, entry.etag, entry.modified)
    if outcome is Outcome.NOT_MODIFIED:
        return Reply(304, entry.fields, None)
    if outcome is Outcome.PRECONDITION_FAILED:
        return text_reply(412, "the file isn't the one you mean")
    part = None
    if request.method == b"GET":
        part = requested_range(request.fields, entry.etag, entry.modified, entry.length)
    if part is None:
        return Reply(200, entry.fields, entry.length, content(entry, fd, 0, entry.length))
    start, end = part
    if start == end:
        return text_reply(416, "the file is shorter", b"Content-Range: bytes */%d\r\n" % entry.length)
    fields = entry.fields + b"Content-Range: bytes %d-%d/%d\r\n" % (start, end - 1, entry.length)
    return Reply(206, fields, end - start, content(entry, fd, start, end))


def content(entry: Entry, fd: int, start: int, end: int) -> bytes | Span:
    return Span(fd, start, end) if entry.body is None else entry.body[start:end]


def moved(path: str, target: bytes) -> Reply:
    """A directory's address ends in a slash. The path is rebuilt, so that `//host` can't come out of it."""
    query = target.partition(b"?")[1] + target.partition(b"?")[2]
    location = quote(os.fsencode(path)).encode() + query
    return text_reply(301, "the address of a directory ends in /", b"Location: " + location + b"\r\n")


def failed(error: OSError) -> Reply:
    """What an error of the file system means to the client, without telling it where our files are."""
    if error.errno in FORBIDDEN:
        return text_reply(403, "this file can't be read by the server")
    if error.errno in OUT_OF_FILES:
        return text_reply(503, "too many files are open", b"Retry-After: 1\r\n")
    return not_found()
