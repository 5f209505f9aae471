"""Mistakes that only show between the parts of a manifest: names, parents, syncs, deletes, addresses, patterns; each at its place."""

from pathlib import Path

import pytest

from muxly_dagster.manifest.connector import load_manifest
from muxly_dagster_tests.manifest.test_loading import HEAD, STREAMS, only, problems

KEYSET = "    paging: {kind: keyset, by: id, size: [query.limit, 5]}\n"
DELTA = """\
    sync:
      kind: delta
      seed: pages
      token: $.token
      request: {path: /changes, query: {token: "${token}"}}
      expired: [410]
"""


def delta(old: str, new: str) -> str:
    assert old in DELTA
    return HEAD + STREAMS + DELTA.replace(old, new)


def test_a_delta_sync_loads(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(HEAD + STREAMS + DELTA)
    load_manifest(tmp_path / "shop.yaml")


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        (delta("      expired: [410]\n", ""), "sync.expired", "too old one day"),
        (delta("seed: pages", "seed: page"), "sync.seed", "is no seed"),
        (delta("seed: pages", 'seed: "check:$.x"'), "sync.seed", "no `check`"),
        (delta("      seed: pages\n", ""), "sync.seed", "is missing"),
        (delta(', query: {token: "${token}"}', ""), "sync.request", "does not place ${token}"),
        (delta("{path: /changes", "{path: '/${cursor}'"), "sync.request.path", "nothing is called ${cursor} here"),
        (
            delta("expired", "deletes: {column: gone, below: /}\n      expired").replace("[id]", "[a, id]"),
            "sync.deletes.below",
            "one column",
        ),
        (delta("expired", "deletes: $.gone\n      expired").replace("[id]", "[a, id]"), "sync.deletes", "not one column"),
        (delta("seed: pages", "seed: {request: {path: /x}}"), "sync.seed.token", "is missing"),
        (delta("expired", "deletes: {equals: gone}\n      expired"), "sync.deletes.column", "is missing"),
        (HEAD + STREAMS.replace("    key: [id]\n", "") + DELTA, "sync", "told by a key"),
        (HEAD + STREAMS.replace("/things}", '"/${token}"}'), "request.path", "nothing is called ${token}"),
        (HEAD + STREAMS + "    deletes: {request: {path: /d}}\n", "deletes.key", "is missing"),
        (HEAD + STREAMS + "    deletes: {request: {path: /d}, key: [$.id]}\n", "deletes", "sees by itself"),
        (
            HEAD + STREAMS + '    sync: {kind: cursor, field: at}\n    deletes: {request: {path: "/${keyset}"}, key: [$.id]}\n',
            "deletes.request.path",
            "nothing is called ${keyset}",
        ),
        (
            HEAD + STREAMS + "    sync: {kind: cursor, field: at}\n    deletes: {request: {path: /d}, key: [$.a, $.b]}\n",
            "deletes.key",
            "the stream's key is id",
        ),
        (HEAD + STREAMS + KEYSET.replace("}", ", sorted: true}"), "paging", "does not place ${keyset}"),
        (HEAD + STREAMS.replace("/things}", '/things, query: {after: "${keyset}"}}') + KEYSET, "paging", "does not sort by id"),
        (
            HEAD + STREAMS + "    paging: {kind: cursor, next: $.next, then: {path: /more}}\n",
            "paging.then",
            "does not name ${page}",
        ),
        (HEAD + STREAMS + "    paging: {kind: cursor, next: $.next}\n", "paging", "does not say which page"),
        (HEAD + STREAMS + "    for_each: streams.thing as it\n", "for_each", "there is no stream 'thing'"),
        (HEAD + STREAMS + "    for_each: config.regions as it\n", "for_each", "there is no input 'regions'"),
        (HEAD + STREAMS + "    for_each: {in: regions, as: it}\n", "for_each", "nothing to read for each of"),
        (HEAD + STREAMS + "    for_each: {in: [a], as: cursor}\n", "for_each", "means something else"),
        (HEAD + STREAMS + '    for_each: {in: [a], as: it, add: {x: "${it.id}"}}\n', "for_each.add.x", "nothing is called ${it.id}"),
        (HEAD + STREAMS + '    enrich: [{request: {path: "/x/${page}"}, key: id}]\n', "enrich.0.request.path", "nothing is called ${page}"),
        (HEAD + STREAMS + '    file: {request: {path: "/x/${key}"}}\n', "file.request.path", "nothing is called ${key}"),
        (HEAD + STREAMS.replace("$.results", "$.r[?@.x =~ /(a+)+b/]"), "records", "may take for ever"),
        (HEAD + STREAMS.replace("$.results", "$.r[?search(@.x, '(a|b)*c')]"), "records", "may take for ever"),
        (HEAD + STREAMS.replace("$.results", "$.r[?match(@['a,b'], '(a+)+')]"), "records", "may take for ever"),
        (HEAD + STREAMS.replace("$.results", "$.r[?@.x =~ /(a?){60}a{60}/]"), "records", "may take for ever"),
        (HEAD + STREAMS.replace("$.results", "$.r[?@.x =~ /.*.*.*.*.*=/]"), "records", "may take for ever"),
        (HEAD + STREAMS.replace("$.results", "$.r[?search(@.x, @.pattern)]"), "records", "has to be a text of the manifest"),
        (HEAD + STREAMS.replace("$.results", f"$.r[?@.x =~ /{'a' * 201}/]"), "records", "has 201 characters"),
        (HEAD + STREAMS + "    response: {kind: csv}\n", "records", "no path to its records"),
    ],
)
def test_what_cannot_work_in_a_stream_is_told_with_its_place(tmp_path: Path, text: str, where: str, says: str) -> None:
    path, line, column, told = only(tmp_path, text)
    assert path == f"streams.things.{where}"
    assert says in told
    assert text.splitlines()[line - 1][column - 1 :].strip()


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("auth: {a: {kind: oauth2, token_url: 'http://api.shop.example/t'}}\n", "auth.a.token_url", "in the clear"),
        ("auth: {a: {kind: oauth2, token_url: 'https://evil.example/t'}}\n", "auth.a.token_url", "not among `hosts`"),
        (
            "auth: {a: {kind: oauth2, token_url: 'https://api.shop.example/t', authorize_url: 'https://evil.example'}}\n",
            "auth.a.authorize_url",
            "not among `hosts`",
        ),
        (
            "auth: {a: {kind: oauth2, token_url: 'https://api.shop.example/t', default_scopes: [read]}}\n",
            "auth.a.default_scopes",
            "not among `scopes`",
        ),
        ("auth: {a: {kind: oauth2, token_url: 'https://${config.x}.example/t'}}\n", "auth.a.token_url", "nothing is called ${config.x}"),
        ("auth: {a: {kind: bearer}, b: {kind: bearer}}\n", "auth.b", "another bearer already"),
        ("config: {f: {type: file}}\n", "config.f", "only actions take a file"),
        ("actions: {send: {request: {path: '/${input.to}'}}}\n", "actions.send.request.path", "nothing is called ${input.to}"),
        ("webhooks: {hook: {streams: {'*': [thing]}}}\n", "webhooks.hook.streams.*", "there is no stream 'thing'"),
        ("errors: [{when: 'body.errors[?@.text =~ /(a+)+b/]', do: skip}]\n", "errors.0.when", "may take for ever"),
        ("check: {path: '/${cursor}'}\n", "check.path", "nothing is called ${cursor}"),
    ],
)
def test_what_cannot_work_beside_the_streams_is_told_with_its_place(tmp_path: Path, text: str, where: str, says: str) -> None:
    path, line, column, told = only(tmp_path, HEAD + text + STREAMS)
    assert path == where
    assert says in told
    assert (HEAD + text + STREAMS).splitlines()[line - 1][column - 1 :].strip()


def test_streams_that_are_read_for_each_record_of_each_other_are_a_circle(tmp_path: Path) -> None:
    text = HEAD + "streams:\n" + "".join(f"  {a}: {{for_each: streams.{b} as it, request: {{path: /x}}}}\n" for a, b in ("ab", "bc", "ca"))
    found = problems(tmp_path, text + "  d: {for_each: streams.a as it, request: {path: /x}}\n")
    assert [(p.path, p.line) for p in found] == [(f"streams.{name}.for_each", line) for name, line in (("a", 8), ("b", 9), ("c", 10))]
    assert "a ← b ← c ← a" in found[0].what


@pytest.mark.parametrize(
    "paging",
    [
        KEYSET.replace("}\n", ", sorted: true, into: query.after}\n"),
        KEYSET.replace("}\n", ", into: query.after}\n    request: {path: /x, query: {order_by: id}}\n"),
    ],
)
def test_a_keyset_that_is_placed_and_sorted_loads(tmp_path: Path, paging: str) -> None:
    streams = STREAMS.replace("    request: {path: /things}\n", "") if "request" in paging else STREAMS
    (tmp_path / "shop.yaml").write_text(HEAD + streams + paging)
    load_manifest(tmp_path / "shop.yaml")


def test_an_address_that_the_source_fills_in_is_judged_as_far_as_it_is_known(tmp_path: Path) -> None:
    config = "config: {shop: {type: string}}\n"
    good = HEAD.replace("https://api.shop.example/v1", "https://${config.shop}.shop.example/v1") + config + STREAMS
    (tmp_path / "shop.yaml").write_text(good)
    load_manifest(tmp_path / "shop.yaml")
    assert "in the clear" in only(tmp_path, good.replace("https://$", "http://$"))[3]
