# ---- what came since the last time ----------------------------------------------------------------------------------


def _news(database: Database, source: _Source, pull: SqlPull, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
    """Rows in the order of the cursor column, after those without a value there and those that `lookback` asks for again.

    Rows of the last value are read again where a key tells them apart: others may have joined them since.
    """
    column = source.cursor
    assert column is not None
    _check_cursor(database, column, source, pull)
    if cursor is not None and cursor.get("column") != column.name:
        raise ConfigurationError(
            f"the last pull went by {cursor.get('column')}, not by {column.name}",
            do=f"run `muxly run NAME --from-start` for this pull once, or set `cursor` back to {cursor.get('column')}",
        )
    last = None if cursor is None else cursor["value"]
    name, from_item = database.quote(column.name), source.sql(database.literal(_earlier(last, pull.lookback, column), column))

    def read(where: str, *, ordered: bool) -> Iterator[Chunk]:
        return database.read(Select(source.columns, from_item, where, column.name if ordered else "", pull.batch_rows), known)

    if column.nullable:
        for chunk in read(f"{name} is null", ordered=False):
            yield _batch(chunk) if source.key else _without_position(chunk, column.name)
    if last is None:
        yield from _in_order(read(f"{name} is not null", ordered=True), column.name)
        return
    bound = database.literal(last, column)
    if pull.lookback:
        start = database.literal(_earlier(last, pull.lookback, column), column)
        for chunk in read(f"{name} >= {start} and {name} < {bound}", ordered=False):
            yield _batch(chunk)
    yield from _in_order(read(f"{name} {'>=' if source.key else '>'} {bound}", ordered=True), column.name)


def _in_order(chunks: Iterator[Chunk], name: str) -> Iterator[Batch]:
    """Batches whose cursor never stands between rows of the same value: the last value of a chunk waits for the next one."""
    held: pa.Table | None = None
    held_at: Any = None

    def at(value: Any) -> Cursor:
        return {"column": name, "value": value}

    for chunk in chunks:
        if not chunk.positions:
            yield _batch(chunk)
            continue
        if held is not None:
            yield _batch(Chunk(held), at(held_at) if chunk.positions[0] != held_at else None)
        held_at = chunk.positions[-1]
        cut = len(chunk.positions)
        while cut and chunk.positions[cut - 1] == held_at:
            cut -= 1
        whole = at(chunk.positions[cut - 1]) if cut else None
        yield _batch(Chunk(chunk.rows.slice(0, cut), (), chunk.unreadable, chunk.metadata), whole)
        held = chunk.rows.slice(cut)
    if held is not None:
        yield _batch(Chunk(held), at(held_at))


def _without_position(chunk: Chunk, name: str) -> Batch:
    """Rows without key and without a cursor's value: nothing tells whether the lake has them already."""
    reason = f"{name} is null and the pull has no key; set `key`, or leave such rows out in a `query`"
    lost = tuple(Unreadable(records.to_json(row).decode(), reason) for row in chunk.rows.to_pylist())
    return Batch(records.normalise(chunk.rows.slice(0, 0)), None, chunk.unreadable + lost)


def _check_cursor(database: Database, column: Column, source: _Source, pull: SqlPull) -> None:
    type_ = column.field.type
    if pa.types.is_boolean(type_) or pa.types.is_binary(type_) or records.is_json(column.field):
        raise ConfigurationError(f"{column.name} ({column.kind}) has no order to go by", do="name a number or a time as `cursor`")
    if pull.lookback and not source.key:
        raise ConfigurationError("`lookback` reads rows again, and without a key they would be stored twice", do="set the pull's `key`")
    if pull.lookback and not database.dynamic and (pa.types.is_temporal(type_) == str(pull.lookback).isdecimal()):
        raise _wrong_lookback(pull.lookback, column)
    if pa.types.is_string(type_) and database.folds_text and not source.key:
        # Values that differ only in case or accents are equal there: a batch could end between them.
        raise ConfigurationError(f"the text column {column.name} can only be a cursor where there is a key", do="set the pull's `key`")


def _earlier(value: Any, lookback: str | int, column: Column) -> Any:
    """The cursor's value moved back; None where there is none yet."""
    if value is None or not lookback:
        return value
    try:
        if str(lookback).isdecimal():
            return str(decimal.Decimal(value) - int(lookback)) if isinstance(value, str) else value - int(lookback)
        moment = dt.datetime.fromisoformat(value)
    except (ValueError, TypeError, ArithmeticError):
        raise _wrong_lookback(lookback, column) from None
    try:
        back = moment - parse_duration(str(lookback))
    except OverflowError:
        back = dt.datetime.min
    if len(value) <= len("2024-01-01"):
        return back.date().isoformat()
    text = back.isoformat(sep=value[10])
    return text.replace("+00:00", "Z") if value.endswith("Z") else text


def _wrong_lookback(lookback: str | int, column: Column) -> ConfigurationError:
    return ConfigurationError(
        f"`lookback` {lookback} cannot be taken from {column.name} ({column.kind or 'its values'})",
        do="write 1000 for a number, 15m for a time",
    )
