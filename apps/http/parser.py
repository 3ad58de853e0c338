"""Request heads by RFC 9112: bytes in, a Request or a Refusal out.

No sockets and no files here, and nothing is kept between calls. What two parsers could read differently is refused,
never repaired: that is what request smuggling lives on.
"""

import re
from typing import NamedTuple

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
FIELD_LINE = rb"(%b++):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)\r\n" % TOKEN

HEAD = re.compile(
    rb"(%b{1,32}) ([!-~]++) HTTP/1\.([0-9])\r\n((?:%b++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n" % (TOKEN, TOKEN)
)
FIELD = re.compile(FIELD_LINE)
REQUEST_LINE = re.compile(rb"(%b+) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n" % TOKEN)
BARE_LF = re.compile(rb"(?<!\r)\n")
ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]+)", re.IGNORECASE)
HOST = re.compile(rb"(?:[0-9A-Za-z._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
DIGITS = re.compile(rb"[0-9]{1,18}")

ONLY_ONCE = frozenset((b"host", b"content-length", b"content-type", b"if-modified-since", b"range", b"if-range"))
METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"))


class Limits(NamedTuple):
    """Bounds of a request, in bytes."""

    head: int = 16384
    request_line: int = 8192
    body: int = 1 << 20


class Request(NamedTuple):
    """A request's head. Names of fields are lower-cased, values of repeated ones joined by a comma (RFC 9110, 5.2)."""

    method: bytes
    target: bytes
    minor: int
    fields: dict[bytes, bytes]
    length: int | None
    """Content-Length; None if the body is chunked."""

    @property
    def keep_alive(self) -> bool:
        """Does the client want the connection kept? (RFC 9112, 9.3)"""
        options = self.fields.get(b"connection")
        if options is None:
            return self.minor >= 1
        tokens = list_members(options.lower())
        return b"close" not in tokens and (self.minor >= 1 or b"keep-alive" in tokens)


class Refusal(NamedTuple):
    """A request that isn't served: the status and, in a few words, why. The connection closes after it."""

    status: int
    why: str


def list_members(value: bytes) -> list[bytes]:
    """The members of a comma-separated field value, without the empty ones (RFC 9110, 5.6.1)."""
    return [member for member in (part.strip(b" \t") for part in value.split(b",")) if member]


def parse(buf: bytes, start: int, limits: Limits, scanned: int = 0) -> tuple[Request | Refusal | None, int]:
    """The request head at `start`, and where it ends.

    `None` means that the head isn't whole yet; `scanned` is how far an earlier call has looked, so that nothing is
    searched twice. A Refusal ends where it starts: what follows it can't be told apart.
    """
    end = buf.find(b"\r\n\r\n", max(start, scanned - 3))
    if end < 0:
        return unfinished(buf, start, limits, max(start, scanned - 1)), start
    end += 4
    head = HEAD.fullmatch(buf, start, end)
    if head is None or end - start > limits.head:
        return malformed(buf[start:end], limits), start
    method, target, minor, block = head.groups()
    if len(method) + len(target) + 11 > limits.request_line:
        return Refusal(414, "the request line is too long"), start
    if method not in METHODS:
        return Refusal(501, "this method isn't known here"), start
    fields = read_fields(block)
    if isinstance(fields, Refusal):
        return fields, start
    request = check_host(method, target, int(minor), fields)
    if isinstance(request, Refusal):
        return request, start
    request = check_expectation(check_framing(request, limits))
    return request, start if isinstance(request, Refusal) else end


def unfinished(buf: bytes, start: int, limits: Limits, fresh: int) -> Refusal | None:
    """What can be said of a head before its end has come: that it never can be one, or is too long.

    Only what lies from `fresh` on hasn't been judged yet, but for the lengths."""
    if BARE_LF.search(buf, fresh):
        return Refusal(400, "lines end in CR LF")
    line_end = buf.find(b"\r\n", fresh) + 2
    if line_end > 1 and buf.find(b"\r\n", start, line_end) + 2 == line_end:
        refusal = malformed_line(buf[start:line_end])
        if refusal is not None:
            return refusal
    size = len(buf) - start
    if size > limits.request_line and buf.find(b"\n", start, start + limits.request_line) < 0:
        return Refusal(414, "the request line is too long")
    if size > limits.head:
        return Refusal(431, "the header is too long")
    return None


def malformed(head: bytes, limits: Limits) -> Refusal:
    """Why HEAD didn't match: the rare path, so it may look at everything again."""
    line_end = head.find(b"\n") + 1
    if line_end > limits.request_line:
        return Refusal(414, "the request line is too long")
    if len(head) > limits.head:
        return Refusal(431, "the header is too long")
    if BARE_LF.search(head):
        return Refusal(400, "lines end in CR LF")
    return malformed_line(head[:line_end]) or malformed_field(head[line_end:-2])


def malformed_line(line: bytes) -> Refusal | None:
    """What is wrong with a request line, if anything is."""
    match = REQUEST_LINE.fullmatch(line)
    if match is None:
        return Refusal(400, "the request line isn't METHOD TARGET HTTP/VERSION")
    if match[3] != b"1":
        return Refusal(505, "this server speaks HTTP/1.1 and HTTP/1.0")
    if len(match[1]) > 32:
        return Refusal(501, "this method isn't known here")
    return None


def malformed_field(block: bytes) -> Refusal:
    """Which rule of RFC 9112, section 5 the first bad field line breaks."""
    for line in block.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            return Refusal(400, "a header line starts with white space")
        name = line.partition(b":")[0]
        if name[-1:] in (b" ", b"\t"):
            return Refusal(400, "there is white space before a header's colon")
        if line and not FIELD.fullmatch(line + b"\r\n"):
            break
    return Refusal(400, "a header line is malformed")


def read_fields(block: bytes) -> dict[bytes, bytes] | Refusal:
    """The field lines as a dict. A field that must stand once and stands twice is refused."""
    fields: dict[bytes, bytes] = {}
    for name, value in FIELD.findall(block):
        name = name.lower()
        value = value.rstrip(b" \t")
        if name in fields:
            if name in ONLY_ONCE:
                return Refusal(400, f"{name.decode()} is given twice")
            value = fields[name] + b", " + value
        fields[name] = value
    return fields


def check_host(method: bytes, target: bytes, minor: int, fields: dict[bytes, bytes]) -> Request | Refusal:
    """Host (RFC 9112, 3.2) and the form of the target: an absolute one is reduced to its path."""
    host = fields.get(b"host")
    if host is None:
        if minor >= 1:
            return Refusal(400, "HTTP/1.1 requires a Host header")
    elif not HOST.fullmatch(host):
        return Refusal(400, "the Host header is malformed")
    absolute = ABSOLUTE_FORM.match(target)
    if absolute:
        target = target[absolute.end() :]
        target = target if target[:1] == b"/" else b"/" + target
    if target[:1] != b"/" and method != b"CONNECT" and not (target == b"*" and method == b"OPTIONS"):
        return Refusal(400, "the target isn't a path")
    if b"#" in target:
        return Refusal(400, "a target has no fragment")
    return Request(method, target, minor, fields, 0)


def check_framing(request: Request, limits: Limits) -> Request | Refusal:
    """The body's length by RFC 9112, section 6: one Content-Length, or chunked and nothing else."""
    fields = request.fields
    coding = fields.get(b"transfer-encoding")
    length = fields.get(b"content-length")
    if coding is not None:
        if length is not None:
            return Refusal(400, "both Content-Length and Transfer-Encoding are given")
        return check_coding(request, list_members(coding.lower()))
    if length is None:
        return request
    if not DIGITS.fullmatch(length):
        return Refusal(400, "Content-Length isn't a number")
    if int(length) > limits.body:
        return Refusal(413, f"a body may have {limits.body} bytes")
    return request._replace(length=int(length))


def check_coding(request: Request, codings: list[bytes]) -> Request | Refusal:
    """Transfer-Encoding: only `chunked` is spoken, and not to HTTP/1.0, which doesn't know it."""
    if request.minor == 0:
        return Refusal(400, "HTTP/1.0 has no Transfer-Encoding")
    if codings.count(b"chunked") != 1 or codings[-1] != b"chunked":
        return Refusal(400, "the last transfer coding must be chunked, once")
    if len(codings) > 1:
        return Refusal(501, "only the chunked transfer coding is known here")
    return request._replace(length=None)


def check_expectation(request: Request | Refusal) -> Request | Refusal:
    """Expect (RFC 9110, 10.1.1): one expectation exists, and HTTP/1.0 has none."""
    if isinstance(request, Request) and request.minor >= 1:
        if request.fields.get(b"expect", b"100-continue").lower() != b"100-continue":
            return Refusal(417, "the only expectation known here is 100-continue")
    return request
