"""Records that were refused: look, correct, replay, skip."""

from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from muxly_dagster.api.answers import Read, unknown
from muxly_dagster.api.paging import After, Limit, Page, place_cursor, place_of
from muxly_dagster.api.problems import not_found
from muxly_dagster.api.service import service_of
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.runtime import Runtime
from muxly_dagster.state import DeadLetter as Letter

router = APIRouter(tags=["Dead letters"])

Status = Literal["open", "replayed", "superseded", "resolved", "skipped"]
LetterId = Annotated[
    str,
    Path(description="Its id, or the beginning of it.", examples=["3f9c0d7e5b1a2468"], min_length=1, max_length=64, pattern="^[0-9a-f]+$"),
]
_NAME = "A pull, source, delivery or route."
_EVERY = 1_000_000
_RECORD = '{"id":"crm.deals:8f3a2c11:42","op":"upsert","key":"1001","data":{"id":1001,"amount":"a lot"}}'


class DeadLetter(Read):
    """A record that could not be read (kind `pull`) or that a destination refused (kind `delivery`)."""

    id: str = Field(description="The same record at the same place is one letter, however often it fails.", examples=["3f9c0d7e5b1a2468"])
    kind: Literal["pull", "delivery"] = Field(description="Where it failed.", examples=["delivery"])
    name: str = Field(description="The pull or delivery.", examples=["big_deals.warehouse"])
    record_id: str = Field(description="The change; empty where the record could not be read.", examples=["crm.deals:8f3a2c11:42"])
    status: Status = Field(description="What became of it.", examples=["open"])
    times: int = Field(description="How often it failed.", examples=[1])
    reason: str = Field(description="Why.", examples=["amount: 'a lot' is not a number"])
    at: str = Field(description="When it last failed.", examples=["2026-03-01T06:00:05.120000Z"])
    run_id: str = Field(description="The run in which it last failed.", examples=["0b1f3c52-8a3e-4f0e-9d0c-54d1e4a2b7aa"])
    record: str = Field(description="The record as text: JSON, unless it could not be read.", examples=[_RECORD])
    edited: str | None = Field(description="The data as somebody corrected it, as JSON; a replay sends this.", examples=[None])


class Correction(BaseModel):
    """What is wrong about a record, put right."""

    model_config = ConfigDict(extra="forbid")

    data: dict[str, Any] | None = Field(
        description="Columns with their right values, as they stand in a record; null takes an earlier correction back.",
        examples=[{"amount": "12500.00"}],
    )


class Chosen(BaseModel):
    """Which dead letters are meant: by their ids, or by name all open ones of a pull, source, delivery or route. Give one of them."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"ids": ["3f9c0d7e5b1a2468"]}, {"name": "big_deals"}]})

    ids: list[Annotated[str, Field(max_length=64, pattern="^[0-9a-f]+$")]] = Field([], description="Ids.", max_length=1000)
    name: str = Field("", description=_NAME, max_length=512)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.ids) == bool(self.name):
            raise ValueError("give either ids or a name")
        return self


class Replayed(Read):
    """What became of dead letters that were sent again."""

    replayed: int = Field(description="Taken this time.", examples=[1])
    superseded: int = Field(description="Not sent, since a newer version of the record has got there.", examples=[0])
    refused: int = Field(description="Refused again.", examples=[0])


class Skipped(Read):
    """How many dead letters were passed over."""

    skipped: int = Field(description="How many.", examples=[1])


@router.get("/v1/dead-letters", operation_id="list_dead_letters", summary="List dead letters", response_model=Page[DeadLetter])
def list_dead_letters(
    request: Request,
    name: Annotated[str, Query(description=f"{_NAME} All of them unless given.", examples=["big_deals"], max_length=512)] = "",
    status: Annotated[Status | Literal["all"], Query(description="What became of them.", examples=["open"])] = "open",
    limit: Limit = 100,
    cursor: After = "",
) -> Page[DeadLetter]:
    """Dead letters, the last that failed first."""
    runtime = service_of(request).runtime
    before = place_of(cursor, "dead letters", str, str)
    found = runtime.state.ledger.dead_letters(
        name or None,
        status=None if status == "all" else status,
        limit=limit + 1,
        before=(before[0], before[1]) if before else None,
    )
    if name and not found and name not in _names(runtime):
        raise unknown("pull, source, delivery or route", name, _names(runtime), "leave the name out")
    shown = [DeadLetter.model_validate(letter) for letter in found[:limit]]
    return Page(items=shown, next=place_cursor("dead letters", shown[-1].at, shown[-1].id) if len(found) > limit else "")


@router.get("/v1/dead-letters/{letter_id}", operation_id="get_dead_letter", summary="Show a dead letter", response_model=DeadLetter)
def get_dead_letter(request: Request, letter_id: LetterId) -> DeadLetter:
    """One dead letter with its reason and record."""
    return DeadLetter.model_validate(_find(service_of(request).runtime, letter_id))


@router.patch("/v1/dead-letters/{letter_id}", operation_id="edit_dead_letter", summary="Correct a dead letter", response_model=DeadLetter)
def edit_dead_letter(request: Request, letter_id: LetterId, correction: Correction) -> DeadLetter:
    """Correct the data of a record that a destination refused; columns that are not named stay as they are. A replay then sends it."""
    runtime = service_of(request).runtime
    letter = _find(runtime, letter_id)
    runtime.edit(letter, correction.data)
    return DeadLetter.model_validate(_find(runtime, letter.id))


@router.post("/v1/dead-letters/replay", operation_id="replay_dead_letters", summary="Replay dead letters", response_model=Replayed)
def replay_dead_letters(request: Request, chosen: Chosen) -> dict[str, int]:
    """Send refused records again, each only to the destination that refused it; ends when all are answered for."""
    runtime = service_of(request).runtime
    return runtime.replay(_letters(runtime, chosen))


@router.post("/v1/dead-letters/skip", operation_id="skip_dead_letters", summary="Skip dead letters", response_model=Skipped)
def skip_dead_letters(request: Request, chosen: Chosen) -> dict[str, int]:
    """Pass over refused records: they are not sent any more, and a delivery that one of them stops goes on behind it."""
    runtime = service_of(request).runtime
    return {"skipped": runtime.skip(_letters(runtime, chosen))}


def _letters(runtime: Runtime, chosen: Chosen) -> list[Letter]:
    """The open dead letters that are meant."""
    if chosen.ids:
        letters = {letter.id: letter for letter in (_find(runtime, letter_id) for letter_id in chosen.ids)}
        closed = [letter.id for letter in letters.values() if letter.status != "open"]
        if closed:
            raise ConfigurationError(f"{closed[0]} is not open: it was {letters[closed[0]].status}", do="leave it out")
        return list(letters.values())
    if chosen.name not in _names(runtime):
        raise unknown("pull, source, delivery or route", chosen.name, _names(runtime), "list them with GET /v1/dead-letters")
    return runtime.state.ledger.dead_letters(chosen.name, limit=_EVERY)


def _names(runtime: Runtime) -> set[str]:
    assembly = runtime.assembly
    return {*assembly.sources, *assembly.pulls, *assembly.targets, *(target.route for target in assembly.targets.values())}


def _find(runtime: Runtime, letter_id: str) -> Letter:
    letter = runtime.state.ledger.dead_letter(letter_id)
    if letter is None:
        raise not_found(
            f"no dead letter, or more than one, has an id that begins with {letter_id}", "list them with GET /v1/dead-letters?status=all"
        )
    return letter
