"""Which form of an answer a client wants most, by its Accept header (RFC 9110, 12.5.1)."""

from collections.abc import Sequence


def best(accept: str, forms: Sequence[str]) -> str | None:
    """The form of the highest weight, of equals the first; None where none of them is wanted."""
    ranges = [_range(part) for part in accept.split(",") if part.strip()]
    if not ranges:
        return forms[0]
    weighed = [(_weight(form, ranges), form) for form in forms]
    top = max(weight for weight, _ in weighed)
    return next(form for weight, form in weighed if weight == top) if top > 0 else None


def _range(part: str) -> tuple[str, float]:
    media_type, *parameters = (each.strip().lower() for each in part.split(";"))
    weight = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = min(1.0, max(0.0, float(value)))
            except ValueError:
                weight = 0.0
    return media_type, weight


def _weight(form: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The weight that the most specific range gives to a form."""
    specific = (form, form.partition("/")[0] + "/*", "*/*")
    found = [(specific.index(media_type), -weight) for media_type, weight in ranges if media_type in specific]
    return -min(found)[1] if found else 0.0
