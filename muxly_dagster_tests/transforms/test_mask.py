import hashlib

import pyarrow as pa
import pytest
from pydantic import ValidationError

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.transforms.mask import Mask

ROWS = pa.table({"id": [1, 2], "email": ["a@b.c", None], "card": ["4111111111111111", "123"], "amount": [12, None]})


def test_each_way_of_masking(apply):
    step = Mask.parse({"email": "hash", "card": "last4", "amount": "redact"})
    assert apply(step, ROWS).to_pylist() == [
        {"id": 1, "email": hashlib.sha256(b"a@b.c").hexdigest(), "card": "***1111", "amount": "***"},
        {"id": 2, "email": None, "card": "***", "amount": None},
    ]


def test_null_empties_a_column_and_leaves_its_type(apply):
    masked = apply(Mask.parse({"amount": None, "email": "null"}), ROWS)
    assert masked.column("amount").to_pylist() == [None, None]
    assert masked.schema.field("amount").type == pa.int64()


def test_a_salt_changes_the_hash_and_is_shown_nowhere(apply):
    step = Mask.parse({"columns": {"email": "hash"}, "salt": "it's secret"})
    assert apply(step, ROWS).column("email")[0].as_py() == hashlib.sha256(b"it's secreta@b.c").hexdigest()
    assert "secret" not in repr(step)
    assert "secret" not in str(step.model_dump())


def test_an_unknown_way_is_refused():
    with pytest.raises(ValidationError):
        Mask.parse({"email": "md5"})


def test_an_unknown_column_is_refused(apply):
    with pytest.raises(ConfigurationError, match=r"no column mail; did you mean email\?"):
        apply(Mask.parse({"mail": "hash"}), ROWS)
