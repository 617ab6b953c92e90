"""The zoo and the helpers for graphs are found by all tests of programs, those of passes included."""

import pytest

pytest.register_assert_rewrite("graphs", "zoo")
