"""Kinds of answers: whatever an API sends, made into the JSON page that the decoder reads."""

from collections.abc import Callable, Iterable

import msgspec

from muxly_dagster.decoding import Selector, parse_path, salvage, spoiled_record
from muxly_dagster.errors import ConfigurationError, SourceError
from muxly_dagster.manifest.answers import jsontext
from muxly_dagster.manifest.answers.tabular import csv_records
from muxly_dagster.manifest.answers.unpacking import unpack
from muxly_dagster.manifest.answers.xml import xml_to_json
from muxly_dagster.manifest.schema import BinaryResponse, CsvResponse, JsonLinesResponse, JsonResponse, ResponseSpec, XmlResponse

_MOST = 256 * 2**20
_GROWTH = 8  # as JSON, rows repeat their columns' names
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


def page_reader(response: ResponseSpec, records: str, max_answer: int = _MOST) -> Callable[[bytes], bytes] | None:
    """Makes an answer's content into a JSON page that has its records at the JSONPath `records`; None where it is one already.

    `max_answer` bounds what a compressed answer may unpack to, in bytes. What is read here raises SourceError; a record that cannot be
    read is left to the decoder, which sets it aside. Raises ConfigurationError where there can be no such path in such an answer.
    """
    if isinstance(response, BinaryResponse) or (isinstance(response, JsonResponse) and response.compression == "none"):
        return None
    selector = parse_path(records)
    if isinstance(response, JsonLinesResponse | CsvResponse) and selector.names != ():
        what = f"the records of a {response.kind} answer are `$`, not {records}"
        raise ConfigurationError(what, do="leave `records` out: every line is a record")
    lists = response.lists if isinstance(response, XmlResponse) else []
    # A list of records is one even where it holds a single one, so that all pages have one shape.
    lists = [*lists, *([".".join(selector.names)] if selector.names else [])]

    def read(content: bytes) -> bytes:
        files = unpack(content, response.compression, response.members, max_answer)
        match response:
            case JsonLinesResponse():
                return _listed((_lines(file) for file in files), max_answer)
            case CsvResponse():
                return _listed((rows for file in files for rows in csv_records(file, response)), max_answer)
            case XmlResponse():
                return _as_one([xml_to_json(file, lists) for file in files], selector)
        return _as_one(files, selector)

    return read


def _listed(parts: Iterable[bytes], max_answer: int) -> bytes:
    found: list[bytes] = []
    size = 0
    for part in parts:
        size += len(part)
        if size > _GROWTH * max_answer:
            do = "ask for less at a time, for fewer columns, or raise the manifest's max_answer"
            raise SourceError("the answer's rows take up more memory than is allowed", do=do)
        if part:
            found.append(part)
    return b"[" + b",".join(found) + b"]"


def _lines(content: bytes) -> bytes:
    """The lines' values with commas between; a line that is no JSON value spoils no other."""
    lines = [line for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    joined = b",".join(lines)
    try:
        if len(_elements(b"[" + joined + b"]")) == len(lines):
            return joined
    except (ValueError, RecursionError):
        pass
    return b",".join(map(_line, lines))


def _line(line: bytes) -> bytes:
    reason = salvage.broken(line)
    return line if reason is None else spoiled_record(line.strip().decode("utf-8", "replace"), reason)


def _as_one(pages: list[bytes], selector: Selector) -> bytes:
    """Several documents as one: the first, with the records of all."""
    if len(pages) == 1:
        return pages[0]
    if not pages:
        raise SourceError(
            "the zip holds no file", do="look at what the address answers; if nothing is news, let it answer with an empty list"
        )
    texts = [text for page in pages for text in _record_texts(page, selector)]
    if selector.names == ():
        return b"[" + b",".join(texts) + b"]"
    frame = salvage.cut(pages[0], selector)
    start = salvage.list_start(pages[0], selector.names) if selector.names and frame else None
    if frame is None or start is None:
        raise SourceError(
            f"the zip holds {len(pages)} files whose records at {selector.text} cannot be put together",
            do="name one of the files by `response.members`, or a path that leads straight to a list by `records`",
        )
    return frame[0][:start] + b",".join(texts) + frame[0][start:]


def _record_texts(page: bytes, selector: Selector) -> list[bytes]:
    pieces = salvage.cut(page, selector)
    if pieces is not None:
        return pieces[1]
    try:
        return jsontext.records(page, selector.text) or []
    except ValueError as error:
        raise SourceError(
            f"a file in the zip is no JSON ({salvage.reason(error)}): it begins with {salvage.begin(page)}",
            do="look at what the address answers, and correct `response`",
        ) from None
