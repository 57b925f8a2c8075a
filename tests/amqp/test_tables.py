"""Field tables come back as they were sent."""

from datetime import datetime, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amphora.amqp.frames import field_table, read_field_table

NAMES = st.text(st.characters(exclude_categories=['Cs']), max_size=30)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=['Cs']))
    | st.binary().map(bytearray)
    | st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)).map(
        lambda at: at.replace(microsecond=0, tzinfo=timezone.utc)
    ),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(NAMES, values, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_a_table_comes_back(table):
    raw = field_table(table, 'the table')

    assert read_field_table(raw, 0) == (table, len(raw))


def test_a_decimal_comes_back():
    table = {'price': Decimal('3.14')}

    assert read_field_table(field_table(table, 'the table'), 0)[0] == table


@pytest.mark.parametrize('value', [2**63, object(), {'x' * 300: 1}, '\ud800', {'\ud800': 1}])
def test_what_cannot_be_encoded_is_named(value):
    with pytest.raises(ValueError, match='the table cannot be encoded'):
        field_table({'name': value}, 'the table')
