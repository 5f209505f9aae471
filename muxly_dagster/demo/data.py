"""What the demo's API knows on a given day: companies, contacts, deals, customers and invoices, all derived from numbers.

Every record is a function of its kind, its number and the day it last changed, so one day gives the same bytes on every
machine, and the next day changes some records, adds some and deletes a few.
"""

import datetime as dt
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

_Choice = TypeVar("_Choice")

_EPOCH = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
_FIRST = (
    "Ada",
    "Bela",
    "Chidi",
    "Dunya",
    "Emil",
    "Farah",
    "Goran",
    "Hana",
    "Ines",
    "Jonas",
    "Kaya",
    "Lior",
    "Mina",
    "Noor",
    "Otto",
    "Priya",
)
_LAST = ("Adler", "Brandt", "Costa", "Diallo", "Eriksen", "Fuchs", "Gupta", "Haas", "Ito", "Jansen", "Kowal", "Lang", "Moreau", "Novak")
_TRADES = ("Bakery", "Bikes", "Books", "Ceramics", "Coffee", "Energy", "Films", "Gardens", "Labs", "Logistics", "Optics", "Robotics")
_PLACES = (("Berlin", "DE"), ("Lyon", "FR"), ("Porto", "PT"), ("Gdansk", "PL"), ("Osaka", "JP"), ("Austin", "US"), ("Lagos", "NG"))
_INDUSTRIES = ("SOFTWARE", "RETAIL", "RENEWABLES", "LOGISTICS", "FOOD_PRODUCTION", "EDUCATION", "HEALTH")
_LIFECYCLE = ("subscriber", "lead", "lead", "marketingqualifiedlead", "salesqualifiedlead", "opportunity", "customer", "customer")
_STAGES = ("appointmentscheduled", "qualifiedtobuy", "presentationscheduled", "contractsent", "closedwon", "closedlost")
_PLANS = (("free", 0), ("team", 49), ("business", 199), ("enterprise", 999))

_NAMELESS = 2_000  # every deal with a multiple of this has no name: the hook refuses it, so there are dead letters to look at
_COMPANIES, _CONTACTS, _DEALS, _CUSTOMERS, _INVOICES = 2_000, 20_000, 8_000, 5_000, 15_000
_CONTACTS_PER_CUSTOMER = _CONTACTS // _CUSTOMERS


@dataclass(frozen=True, slots=True)
class _Line:
    sku: str
    quantity: int
    unit_cents: int


@dataclass(frozen=True, slots=True)
class Item:
    """One record as the API serves it: its id, the time of its last change and its JSON."""

    id: str
    updated_at: dt.datetime
    json: bytes


class _Draws:
    """An endless row of choices that is always the same for one seed."""

    def __init__(self, seed: str) -> None:
        self._seed, self._block, self._bytes = seed, 0, b""

    def below(self, limit: int) -> int:
        if not self._bytes:
            self._bytes = hashlib.blake2b(f"{self._seed}#{self._block}".encode()).digest()
            self._block += 1
        head, self._bytes = self._bytes[:4], self._bytes[4:]
        return int.from_bytes(head, "big") % limit

    def of(self, choices: Sequence[_Choice]) -> _Choice:
        return choices[self.below(len(choices))]

    def span(self, days: float) -> dt.timedelta:
        return dt.timedelta(milliseconds=self.below(int(days * 86_400_000)))


class _Facts:
    """What a record is made of: `born` draws stay for its life, `now` draws change whenever it does."""

    def __init__(self, kind: str, number: int, born_day: int, changed_day: int) -> None:
        self.number = number
        self.born = _Draws(f"{kind}/{number}")
        self.now = _Draws(f"{kind}/{number}/{changed_day}")
        self.created_at = _EPOCH + dt.timedelta(days=born_day) - self.born.span(365 if born_day == 1 else 0.9)
        # A day's changes all lie within that day, so whoever has read a day finds the next by "updated since".
        self.updated_at = max(self.created_at, _EPOCH + dt.timedelta(days=changed_day) - self.now.span(0.9))


def _time(moment: dt.datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _person(number: int) -> tuple[str, str, str]:
    draws = _Draws(f"person/{number}")
    first, last = draws.of(_FIRST), draws.of(_LAST)
    return first, last, f"{first}.{last}.{number}@mail.example".lower()


def _company_name(number: int) -> str:
    draws = _Draws(f"company name/{number}")
    return f"{draws.of(_LAST)} {draws.of(_TRADES)} {number}"


def _crm_object(facts: _Facts, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": str(facts.number),
        "properties": properties,
        "createdAt": _time(facts.created_at),
        "updatedAt": _time(facts.updated_at),
        "archived": False,
    }


def _company(facts: _Facts) -> dict[str, Any]:
    city, country = facts.born.of(_PLACES)
    name = _company_name(facts.number)
    properties = {
        "name": name,
        "domain": name.lower().replace(" ", "-") + ".example",
        "industry": facts.born.of(_INDUSTRIES),
        "city": city,
        "country": country,
        "numberofemployees": 1 + facts.now.below(5_000),
    }
    return _crm_object(facts, properties)


def _contact(facts: _Facts) -> dict[str, Any]:
    first, last, email = _person(facts.number)
    city, country = facts.born.of(_PLACES)
    properties = {
        "email": email,
        "firstname": first,
        "lastname": last,
        "phone": f"+49 30 {facts.born.below(10**7):07d}",
        "company_id": str(1 + facts.born.below(_COMPANIES)),
        "city": city,
        "country": country,
        "lifecyclestage": facts.now.of(_LIFECYCLE),
        "hs_lead_status": facts.now.of(("NEW", "OPEN", "IN_PROGRESS", None)),
        "num_page_views": facts.now.below(400),
    }
    return _crm_object(facts, properties)


def _deal(facts: _Facts) -> dict[str, Any]:
    contact = 1 + facts.born.below(_CONTACTS)
    nameless = facts.number % _NAMELESS == 0
    cents = 10_000 + facts.now.below(300) ** 2 * 100 + facts.now.below(100)
    properties = {
        "dealname": ""
        if nameless
        else f"{_company_name(1 + facts.born.below(_COMPANIES))}: {facts.born.of(('new', 'renewal', 'upgrade'))}",
        "amount": "75000.00" if nameless else f"{cents // 100}.{cents % 100:02d}",
        "dealstage": "closedwon" if nameless else facts.now.of(_STAGES),
        "pipeline": "default",
        "contact_id": str(contact),
        "closedate": (facts.updated_at + facts.now.span(60)).date().isoformat(),
    }
    return _crm_object(facts, properties)


def _customer(facts: _Facts) -> dict[str, Any]:
    first, last, email = _person(facts.number * _CONTACTS_PER_CUSTOMER)
    plan, price = facts.now.of(_PLANS)
    return {
        "id": f"cus_{facts.number:06d}",
        "email": email,
        "name": f"{first} {last}",
        "plan": plan,
        "monthly_price": price,
        "balance": f"{facts.now.below(20_000) / 100:.2f}",
        "created": int(facts.created_at.timestamp()),
        "address": {"city": facts.born.of(_PLACES)[0], "vat_id": f"EU{facts.born.below(10**9):09d}"},
    }


def _invoice(facts: _Facts) -> dict[str, Any]:
    skus = [f"SKU-{facts.born.below(500):03d}" for _ in range(1 + facts.born.below(3))]
    lines = [_Line(sku, 1 + facts.born.below(9), 500 + facts.born.below(50_000)) for sku in skus]
    cents = sum(line.quantity * line.unit_cents for line in lines)
    status = facts.now.of(("draft", "open", "open", "paid", "paid", "paid", "void"))
    return {
        "id": f"inv_{facts.number:07d}",
        "customer_id": f"cus_{1 + facts.born.below(_CUSTOMERS):06d}",
        "status": status,
        "currency": facts.born.of(("EUR", "EUR", "USD", "GBP")),
        "total": f"{cents // 100}.{cents % 100:02d}",
        "issued_on": facts.created_at.date().isoformat(),
        "paid_at": _time(facts.updated_at) if status == "paid" else None,
        "updated_at": _time(facts.updated_at),
        "lines": lines,
    }


@dataclass(frozen=True, slots=True)
class _Kind:
    """How many records a collection begins with, and how many a day adds, changes and deletes at most."""

    build: Callable[[_Facts], dict[str, Any]]
    initial: int
    added: int
    changed: int
    deleted: int


_KINDS = {
    "companies": _Kind(_company, _COMPANIES, added=8, changed=25, deleted=2),
    "contacts": _Kind(_contact, _CONTACTS, added=120, changed=200, deleted=15),
    "deals": _Kind(_deal, _DEALS, added=60, changed=150, deleted=0),
    "customers": _Kind(_customer, _CUSTOMERS, added=30, changed=60, deleted=4),
    "invoices": _Kind(_invoice, _INVOICES, added=90, changed=140, deleted=0),
}


def collection(name: str, day: int) -> list[Item]:
    """Every record of a collection as it stands on a day (1 is the first), in the order of their numbers."""
    kind = _KINDS[name]
    days = dict.fromkeys(range(1, kind.initial + 1), (1, 1))
    count = kind.initial
    for today in range(2, day + 1):
        draws = _Draws(f"{name}/day/{today}")
        for _ in range(kind.changed):
            number = 1 + draws.below(count)
            if number in days:
                days[number] = (days[number][0], today)
        for _ in range(kind.deleted):
            days.pop(1 + draws.below(count), None)
        days |= dict.fromkeys(range(count + 1, count + kind.added + 1), (today, today))
        count += kind.added
    items = []
    for number, (born_day, changed_day) in days.items():
        facts = _Facts(name, number, born_day, changed_day)
        record = kind.build(facts)
        items.append(Item(record["id"], facts.updated_at, orjson.dumps(record)))
    return items
