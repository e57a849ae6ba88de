"""The body of an answer, as it comes: unpacked, proven to have ended, and never more than is allowed.

A body can break off inside an HTTP 200. So it counts only when its gzip stream says that it is complete, and an export
only when its framing does so too. What the bytes say is the streams'.
"""

import threading
from collections.abc import Iterable, Iterator

import requests
import urllib3
from isal import isal_zlib
from isal.igzip_lib import IsalError

from mixpanel_assets.client.request_limits import MB, Times
from mixpanel_assets.client.request_watch import RequestWatch
from mixpanel_assets.client.server_text import NO_SECRETS, ServerText
from mixpanel_assets.errors import Cancelled, FatalError, MixpanelError, TransientError

# Each block is a turn at the interpreter lock: with a quarter of this three exports at once take a third longer.
_BLOCK = 1 << 20
_ANY_GZIP = isal_zlib.MAX_WBITS | 16


class BrokenAnswerError(TransientError):
    """A body that is not whole, whatever its status said."""


class TooSlowError(TransientError):
    """No answer in time, or not all of it; a smaller query may come in time."""


class TooLargeError(FatalError):
    """An answer, or a part of it, is larger than is allowed: the same request would bring it again."""


class CancelledInFlightError(Cancelled):
    """The run was asked to end after the request had been sent."""


class Answer:
    """A good answer whose body was not read yet, as a context that gives the connection back.

    Args:
        response: Of the HTTP library.
        what: Names the request in errors.
        watch: Of its request.
        times: Of its request.
        texts: Those of its server.
    """

    def __init__(
        self,
        response: requests.Response,
        what: str,
        watch: RequestWatch | None = None,
        times: Times | None = None,
        texts: ServerText = NO_SECRETS,
    ) -> None:
        self.what = what
        self._response = response
        self._watch = watch or RequestWatch(threading.TIMEOUT_MAX, threading.Event())
        self._times = times
        self._texts = texts

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.end()
        self._response.close()

    def blocks(self, most_mb: int, advice: str, *, framed: bool) -> Iterator[bytes]:
        """The body, unpacked, in blocks of up to a megabyte.

        Args:
            most_mb: How much it may be.
            advice: What to do if it is more.
            framed: Whether the end must be told by a length or by chunks.

        Raises:
            BrokenAnswerError: it broke off, or nothing proves that it did not.
            TooSlowError: it did not come in time.
            TooLargeError: it is larger than is allowed.
            Cancelled: the run was asked to end.
        """
        size = 0
        for block in self._content(framed=framed):
            size += len(block)
            if size > most_mb * MB:
                raise TooLargeError(f"{self.what}: the answer is larger than {most_mb} MB: {advice}")
            yield block

    def _content(self, *, framed: bool) -> Iterator[bytes]:
        try:
            for block in self._decoded(framed=framed):
                # One that was shut down may end as if it were whole, where only the close tells the end.
                if self._watch.is_late or self._watch.is_cancelled:
                    raise self._ended()
                yield block
        # ValueError is what urllib3 leaves of a chunk with a negative size.
        except (urllib3.exceptions.HTTPError, IsalError, ValueError, OSError) as error:  # type: ignore[misc]
            if self._watch.is_late or self._watch.is_cancelled:
                raise self._ended() from None
            if isinstance(error, urllib3.exceptions.ReadTimeoutError) and self._times is not None:
                raise silent(self.what, self._times) from None
            cause = self._texts.quoted(_cause(error))
            raise BrokenAnswerError(f"{self.what}: the connection broke off: {cause}") from None
        if self._watch.is_late or self._watch.is_cancelled:
            raise self._ended()

    def _ended(self) -> MixpanelError | Cancelled:
        return ended(self.what, self._watch, self._times)

    def _decoded(self, *, framed: bool) -> Iterator[bytes]:
        response = self._response
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        # Not response.iter_content: it takes a gzip stream that stops early for a complete one.
        blocks = response.raw.stream(_BLOCK, decode_content=False)
        chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        # The length as urllib3 holds the body to it: none where Content-Length is no number, or a negative one.
        if framed and not chunked and response.raw.length_remaining is None:
            raise BrokenAnswerError(f"{self.what}: the answer has neither length nor chunks, so its end cannot be told")
        if encoding in ("gzip", "x-gzip"):
            return _unzipped(blocks, self.what)
        if encoding not in ("", "identity"):
            raise BrokenAnswerError(
                f"{self.what}: the answer is compressed as {self._texts.quoted(encoding)}, which was not asked for"
            )
        return (block for block in blocks if block)


def _cause(error: Exception) -> str:
    """What broke. Where a chunk has no size, urllib3 quotes what stands there instead, and that may be data."""
    inner = next((each for each in error.args if isinstance(each, Exception)), error)
    return "a chunk has no size" if isinstance(inner, urllib3.exceptions.InvalidChunkLength) else str(inner)


def silent(what: str, times: Times) -> TooSlowError:
    """The error of a request after too long a silence."""
    return TooSlowError(f"{what}: no answer within {times.silence:g} s ({times.setting}_read_timeout_seconds)")


def ended(what: str, watch: RequestWatch, times: Times | None) -> MixpanelError | Cancelled:
    """The error of a request that its watch has ended."""
    if watch.is_cancelled or times is None:
        return CancelledInFlightError(f"{what}: cancelled while it came")
    return TooSlowError(f"{what}: not answered in full within {times.whole:g} s ({times.setting}_deadline_seconds)")


def _unzipped(blocks: Iterable[bytes], what: str) -> Iterator[bytes]:
    """The content of one or more gzip members, none for an empty body; the checksum of each is verified."""
    member = isal_zlib.decompressobj(_ANY_GZIP)
    begun = False
    for block in blocks:
        data = block
        while data:
            if member.eof:
                member, begun = isal_zlib.decompressobj(_ANY_GZIP), False
            plain = member.decompress(data, _BLOCK)
            begun = True
            if plain:
                yield plain
            data = member.unused_data if member.eof else member.unconsumed_tail
    while begun and not member.eof:
        plain = member.decompress(member.unconsumed_tail, _BLOCK)
        if not plain:
            raise BrokenAnswerError(f"{what}: the compressed answer stops before its end")
        yield plain
