"""XML as JSON: every element a value, its attributes and children the members of an object, texts as they stand."""

from collections.abc import Collection
from typing import Any
from xml.etree.ElementTree import ParseError

import orjson
from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import XMLParser  # type: ignore[import-untyped]

from muxly_dagster.errors import SourceError

_DEEPEST = 100  # elements within each other; what JSON is read by ends at some more

Value = str | None | dict[str, Any]


def xml_to_json(content: bytes, lists: Collection[str] = ()) -> bytes:
    """The document as `{"root": ...}`. An element is null, a text, or an object where it has attributes or children.

    Attributes are `@name`, text beside others is `#text`, elements of one name a list, and so are those in `lists` (by name, or by
    their path from the root: `feed.entry`). Namespaces are dropped. Raises SourceError for what is no XML, and for any declaration of a
    document type or an entity: with them a small document can become a huge one, or have files read.
    """
    builder = _Builder(frozenset(lists))
    parser = XMLParser(target=builder, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    try:
        parser.feed(content)
        return orjson.dumps(parser.close())
    except DefusedXmlException:
        do = "ask the service for XML without a <!DOCTYPE>: it is never needed to read data, and can be used to do harm"
        raise SourceError("the answer is XML that declares a document type or entities, which is not read", do=do) from None
    except ParseError as error:
        begin = ascii(content[:80].decode("utf-8", "replace"))
        what = f"the answer is no XML ({error}): it begins with {begin}" if content.strip() else "the answer is no XML: it is empty"
        raise SourceError(what, do="see what the address answers; an answer cut short usually comes whole at the next try") from None
    except (LookupError, ValueError) as error:
        raise SourceError(f"the answer is XML that cannot be decoded: {error}", do="report it to the service") from None


class _Element:
    __slots__ = ("members", "name", "texts")

    def __init__(self, name: str, members: dict[str, Any]) -> None:
        self.name, self.members, self.texts = name, members, [""]

    def value(self) -> Value:
        text = "".join(self.texts)
        if text.isspace():
            text = ""  # only line breaks between elements
        if not self.members:
            return text or None
        return {**self.members, "#text": text} if text else self.members


class _Builder:
    """What the parser tells, as it goes; no element keeps more than its own children."""

    def __init__(self, lists: frozenset[str]) -> None:
        self._lists = lists
        self._ends = frozenset(each.rpartition(".")[2] for each in lists)
        self._open = [_Element("", {})]

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._open) > _DEEPEST:
            raise SourceError(f"the answer's elements lie more than {_DEEPEST} deep in each other", do="report it to the service")
        self._open.append(_Element(_local(tag), {f"@{_local(key)}": value for key, value in attributes.items()}))

    def data(self, text: str) -> None:
        self._open[-1].texts.append(text)

    def end(self, tag: str) -> None:
        listed = self._is_listed()
        done = self._open.pop()
        value = done.value()
        others = self._open[-1].members
        known = others.get(done.name)
        if isinstance(known, list):
            known.append(value)
        elif done.name in others:
            others[done.name] = [known, value]
        else:
            others[done.name] = [value] if listed else value

    def _is_listed(self) -> bool:
        """Whether the innermost element is one of `lists`. The path is made for few: names may be as long as the document."""
        name = self._open[-1].name
        return name in self._ends and (name in self._lists or ".".join(each.name for each in self._open[1:]) in self._lists)

    def close(self) -> dict[str, Any]:
        return self._open[0].members


def _local(name: str) -> str:
    return name.rpartition("}")[2]
