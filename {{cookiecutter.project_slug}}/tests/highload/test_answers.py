"""What was kept is believed only if it is whole and safe: others may write to where it is kept."""

import pytest

from app.highload.etags import entity_tag
from app.highload.http.heads import Heads
from app.highload.reads.answers import LINK, OK, Answer, kept_fields

BODY = b'{"a":1}'
HEADERS = [(b"etag", entity_tag(BODY).encode()), (b"content-length", b"7"), (b"content-type", b"application/json")]


def dump(*changed: tuple[bytes, bytes], body: bytes = BODY) -> bytes:
    return Answer(OK, [*HEADERS, *changed], body).dump()


@pytest.mark.parametrize("body", [BODY, b"\r\n\r\n\r\n\r", b"a: b\r\n"])
@pytest.mark.parametrize("link", [[], [(b"link", b'</a>; rel="next"')]], ids=["last page", "page"])
def test_an_answer_is_the_same_after_it_was_kept(body: bytes, link: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", b"%d" % len(body))
    headers = [HEADERS[0], *link, length, (b"x-empty", b""), (b"x-latin", b"\xe9\t\xe9")]
    answer = Answer(OK, headers, body)
    assert Answer.load(answer.dump()) == answer
    # The generation before it may be any bytes.
    assert Answer.load(b"\r\n\r\n" + answer.dump(), 4) == answer


def test_pages_share_all_but_the_front_of_their_heads() -> None:
    heads = Heads(None)
    kept_fields.cache_clear()
    for number in (b"1", b"2"):
        answer = Answer(OK, [(b"etag", number), *HEADERS[1:]], BODY).with_default(LINK, number)
        heads.of(OK, answer.headers, (), (), b"id")
        assert Answer.load(answer.dump()) == answer
    assert heads._end.cache_info().misses == 1
    assert kept_fields.cache_info().misses == 1


FORGED = {
    "nothing": b"",
    "no head": b"\r\n\r\n" + BODY,
    "a second answer": dump(body=BODY + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    "a body that is cut off": dump()[:-1],
    "no length": Answer(OK, [HEADERS[0]], BODY).dump(),
    "two lengths": dump((b"content-length", b"7")),
    "another length": dump((b"content-length", b"8")),
    "no entity tag": Answer(OK, HEADERS[1:], BODY).dump(),
    "another framing": dump((b"transfer-encoding", b"chunked")),
    "the end of the connection": dump((b"connection", b"close")),
    "a cookie": dump((b"set-cookie", b"session=stolen")),
    "a line feed": dump((b"x", b"a\nset-cookie: b")),
    "a line feed in the link": Answer(OK, [HEADERS[0], (b"link", b"a\nset-cookie: b"), *HEADERS[1:]], BODY).dump(),
    "a carriage return": dump((b"x", b"a\rset-cookie: b")),
    "a zero": dump((b"x", b"\0")),
    "a name with a space": dump((b"x y", b"z")),
    "a name in capitals": dump((b"Set-Cookie", b"a=b")),
    "no name": dump((b"", b"z")),
    "a line without a colon": dump().replace(b"content-type: ", b"content-type "),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_forged_answer_is_none(forged: bytes) -> None:
    assert Answer.load(dump()) is not None
    assert Answer.load(forged) is None
