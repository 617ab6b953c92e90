"""Preprocessor: fitted on training rows, applied to any, saved and restored, checked against the schema."""

import copy
import json

import numpy as np
import pytest

from tinynet.data import Preprocessor, infer_task, read_table
from tinynet.data.encoders import MAX_CATEGORIES
from tinynet.errors import ArgumentError, DataError, DTypeError, RangeError, ShapeError

ROWS = "age,colour,label\n10,red,yes\n20,blue,no\n,red,no\n30,,yes\n"


@pytest.fixture
def table(write_csv):
    return read_table(write_csv(ROWS))


@pytest.fixture
def other(write_csv):
    return lambda text: read_table(write_csv(text, "other.csv"))


def fit_numbers(write_csv, values, **options):
    """Fit on one feature and a regression target 1, 2, 3, ... beside it."""
    table = read_table(write_csv("a,y\n" + "".join(f"{value},{i}\n" for i, value in enumerate(values, 1))))
    return table, Preprocessor.fit(table, "y", "regression", **options)


def test_numbers_are_standardised_and_categories_one_hot(table):
    fitted = Preprocessor.fit(table, "label")
    assert fitted.feature_names == ("age", "colour=blue", "colour=red", "colour=?")
    x = fitted.transform(table)
    unit = np.sqrt(1.5)  # 10 over the deviation of 10, 20, 30
    np.testing.assert_allclose(x, [[-unit, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0], [unit, 0, 0, 1]], rtol=1e-6)
    assert x.dtype == np.float32
    assert fitted.task == "classification" and fitted.classes == ("no", "yes")
    np.testing.assert_array_equal(fitted.target(table), np.array([1, 0, 0, 1]), strict=True)
    assert repr(fitted) == "Preprocessor(classification of 'label', 4 features from 2 columns)"


def test_only_the_rows_given_are_learned_from(table):
    fitted = Preprocessor.fit(table[:2], "label")
    assert fitted.feature_names == ("age", "colour=blue", "colour=red")
    assert (fitted.columns[0].mean, fitted.columns[0].scale) == (15, 5)
    # A category (or a gap) that training did not have is no category at all.
    np.testing.assert_allclose(fitted.transform(table)[3], [3, 0, 0])


def test_a_category_unseen_in_training_is_all_zeros(table, other):
    fitted = Preprocessor.fit(table, "label")
    np.testing.assert_array_equal(fitted.transform(other("age,colour\n20,green\n")), [[0, 0, 0, 0]])


def test_categories_that_look_like_numbers_elsewhere_stay_categories(write_csv, other):
    fitted = Preprocessor.fit(read_table(write_csv("code,y\n12,1\nA7,2\n9,3\n")), "y", "regression")
    np.testing.assert_array_equal(fitted.transform(other("code\n9\n")), [[0, 1, 0]])


def test_a_constant_column_is_zero(write_csv):
    for value in ("0.1", "0", "1e300", "-7"):
        table, fitted = fit_numbers(write_csv, [value] * 7)
        assert fitted.columns[0].scale == 1
        np.testing.assert_array_equal(fitted.transform(table), np.zeros((7, 1)))


@pytest.mark.parametrize("values", [["1e300", "-1e300", "5e299"], ["5e-324", "0", "1e-320"], ["1e16", "1.1e16"]])
def test_extreme_numbers_are_standardised_without_overflow(write_csv, values):
    table, fitted = fit_numbers(write_csv, values)
    x = fitted.transform(table)
    assert np.isfinite(x).all() and np.abs(x).max() < 2


def test_moments_are_those_of_numpy(write_csv):
    values = np.random.default_rng(0).lognormal(size=50)
    _, fitted = fit_numbers(write_csv, values)
    column = fitted.columns[0]
    np.testing.assert_allclose([column.mean, column.scale], [values.mean(), values.std()], rtol=1e-12)


def test_a_column_without_values_in_training_makes_no_feature(write_csv):
    table = read_table(write_csv("a,b,c,y\n1,,,1\n2,,,2\n3,9,z,3\n"))
    assert Preprocessor.fit(table[:2], "y", "regression").feature_names == ("a",)
    with pytest.raises(DataError, match="beside the target 'y', got none"):
        Preprocessor.fit(read_table(write_csv("b,y\n,1\nNA,2\n")), "y")


def test_a_regression_target_is_standardised_and_comes_back(write_csv):
    table = read_table(write_csv("a,y\n1,10.5\n2,20\n3,40\n"))
    fitted = Preprocessor.fit(table, "y")
    y = fitted.target(table)
    assert fitted.task == "regression" and fitted.classes is None
    assert y.shape == (3, 1) and y.dtype == np.float32
    np.testing.assert_allclose([y.mean(), y.std()], [0, 1], atol=1e-6)
    np.testing.assert_allclose(fitted.inverse_target(y), [[10.5], [20], [40]], rtol=1e-6)
    np.testing.assert_allclose(fitted.inverse_target(y[:, 0]), [10.5, 20, 40], rtol=1e-6)


def test_numeric_classes_are_sorted_as_numbers(write_csv):
    table = read_table(write_csv("a,y\n1,10\n2,9\n3,-1\n4,9.0\n"))
    fitted = Preprocessor.fit(table, "y", "classification")
    assert fitted.classes == ("-1", "9", "10")
    assert fitted.target(table).tolist() == [2, 1, 0, 1]


def test_classes_come_back_from_indices_and_from_scores(table):
    fitted = Preprocessor.fit(table, "label")
    assert fitted.inverse_target([1, 0]).tolist() == ["yes", "no"]
    assert fitted.inverse_target(np.array([[0.1, 0.9], [3, -1]])).tolist() == ["yes", "no"]
    assert fitted.inverse_target([]).tolist() == []


@pytest.mark.parametrize(("predicted", "error"), [
    ([2], RangeError), ([-1], RangeError), ([0.5], DTypeError), (np.zeros((3, 4)), ShapeError), (1, ShapeError),
])  # fmt: skip
def test_predictions_of_no_class_are_refused(table, predicted, error):
    with pytest.raises(error, match="inverse_target"):
        Preprocessor.fit(table, "label").inverse_target(predicted)


@pytest.mark.parametrize(("values", "task"), [
    (["red", "blue"], "classification"), (["red", "1"], "classification"),
    ([0, 1] * 3, "classification"), (["0.0", "1.0"], "classification"), ([0.5, 1] * 20, "regression"),
    ([0, 1, 2] * 9, "regression"), ([0, 1, 2] * 10, "classification"),
    (list(range(20)) * 10, "classification"), (list(range(21)) * 30, "regression"), (range(50), "regression"),
])  # fmt: skip
def test_the_task_follows_from_the_target(write_csv, values, task):
    table = read_table(write_csv("y\n" + "".join(f"{value}\n" for value in values)))
    assert infer_task(table, "y") == task


def test_columns_are_found_by_name_and_others_ignored(table, other):
    fitted = Preprocessor.fit(table, "label")
    shuffled = other("extra,colour,age\nx,red,10\nx,blue,20\n")
    np.testing.assert_array_equal(fitted.transform(shuffled), fitted.transform(table[:2]))


def test_no_rows_give_no_features_rows(table):
    fitted = Preprocessor.fit(table, "label")
    assert fitted.transform(table[:0]).shape == (0, 4) and fitted.target(table[:0]).shape == (0,)


def refused(action, *words):
    with pytest.raises(DataError) as caught:
        action()
    assert caught.value.expected and caught.value.got and caught.value.mend
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_missing_column_is_named_with_what_is_there(table, other):
    fitted = Preprocessor.fit(table, "label")
    refused(lambda: fitted.transform(other("age,color\n1,red\n")), "other.csv", "'colour'", "Did you mean 'color'")
    refused(lambda: fitted.target(other("age,colour\n1,red\n")), "'label'")


def test_text_in_a_numeric_column_is_named_by_line(table, other):
    fitted = Preprocessor.fit(table, "label")
    refused(
        lambda: fitted.transform(other('colour,age\n"a\nb",1\nred,old\n')), "other.csv, line 4, column 'age'", "'old'"
    )


def test_a_value_beyond_float32_after_scaling_is_named(table, other):
    fitted = Preprocessor.fit(table, "label")
    refused(lambda: fitted.transform(other("colour,age\nred,1\nred,-1e300\n")), "line 3, column 'age'", "'-1e300'")


def test_a_missing_target_is_named_by_line(table, other):
    gap = other("age,colour,label\n1,red,yes\n2,blue, NA \n")
    refused(lambda: Preprocessor.fit(table, "label").target(gap), "other.csv, line 3, column 'label'", "missing")
    refused(lambda: Preprocessor.fit(gap, "label"), "other.csv, line 3, column 'label'")


def test_a_class_unseen_in_training_is_named_by_line(table, other, write_csv):
    fitted = Preprocessor.fit(table, "label")
    maybe = other("age,colour,label\n1,red,maybe\n")
    refused(lambda: fitted.target(maybe), "line 2, column 'label'", "'no', 'yes'", "'maybe'")
    numbers = Preprocessor.fit(read_table(write_csv("a,y\n1,0\n2,1\n")), "y")
    refused(lambda: numbers.target(other("a,y\n1,0.5\n")), "line 2, column 'y'", "'0.5'")
    refused(lambda: numbers.target(other("a,y\n1,one\n")), "line 2, column 'y'", "'one'")


def test_what_cannot_be_fitted_is_refused(table):
    refused(lambda: Preprocessor.fit(table, "lable"), "'lable'", "'age', 'colour', 'label'", "Did you mean 'label'?")
    refused(lambda: Preprocessor.fit(table[:0], "label"), "training rows")
    refused(lambda: Preprocessor.fit(table, "label", "regression"), "line 2, column 'label'", "a number", "'yes'")
    with pytest.raises(ArgumentError, match="'classify'"):
        Preprocessor.fit(table, "label", "classify")


def test_a_column_of_identifiers_is_refused_before_it_fills_the_memory(write_csv):
    rows = "".join(f"id{i},{i}\n" for i in range(MAX_CATEGORIES + 1))
    table = read_table(write_csv("name,y\n" + rows))
    refused(lambda: Preprocessor.fit(table, "y"), "column 'name'", "1001 different values", "'id0'")
    assert len(Preprocessor.fit(table[1:], "y").feature_names) == MAX_CATEGORIES


@pytest.mark.parametrize(("target", "task"), [("label", None), ("age", "regression"), ("age", "classification")])
def test_it_is_restored_from_json(table, target, task):
    table = table[np.array([0, 1, 3])]
    fitted = Preprocessor.fit(table, target, task)
    restored = Preprocessor.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert restored == fitted
    np.testing.assert_array_equal(restored.transform(table), fitted.transform(table))
    np.testing.assert_array_equal(restored.target(table), fitted.target(table))


@pytest.mark.parametrize(("path", "value", "where"), [
    (["version"], 2, "preprocessor.version"),
    (["version"], None, "preprocessor.version"),
    (["version"], True, "preprocessor.version"),
    (["task"], "ranking", "preprocessor.task"),
    (["target"], [], "preprocessor.target"),
    (["target", "name"], 3, "preprocessor.target.name"),
    (["target", "classes"], [], "preprocessor.target.classes"),
    (["target", "classes"], ["no", "no"], "preprocessor.target.classes"),
    (["target", "classes"], "no", "preprocessor.target.classes"),
    (["target", "numeric"], 0, "preprocessor.target.numeric"),
    (["target", "numeric"], True, "preprocessor.target.classes"),
    (["columns"], {}, "preprocessor.columns"),
    (["columns"], [], "preprocessor.columns"),
    (["columns", 0], None, "preprocessor.columns[0]"),
    (["columns", 0, "kind"], "ordinal", "preprocessor.columns[0].kind"),
    (["columns", 0, "name"], "colour", "preprocessor.columns"),
    (["columns", 0, "name"], "label", "preprocessor.columns"),
    (["columns", 0, "mean"], float("nan"), "preprocessor.columns[0].mean"),
    (["columns", 0, "mean"], "0", "preprocessor.columns[0].mean"),
    (["columns", 0, "mean"], True, "preprocessor.columns[0].mean"),
    (["columns", 0, "mean"], 10**400, "preprocessor.columns[0].mean"),
    (["columns", 0, "scale"], 0, "preprocessor.columns[0].scale"),
    (["columns", 0, "scale"], -1.0, "preprocessor.columns[0].scale"),
    (["columns", 1, "vocabulary"], ["a", 1], "preprocessor.columns[1].vocabulary"),
    (["columns", 1, "missing"], "no", "preprocessor.columns[1].missing"),
])  # fmt: skip
def test_a_damaged_record_is_refused_by_field(table, path, value, where):
    state = copy.deepcopy(Preprocessor.fit(table, "label").to_dict())
    inner = state
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    refused(lambda: Preprocessor.from_dict(state), f"{where}: expected")


def test_a_record_without_a_field_is_refused(table):
    for name in ("version", "task", "target", "columns"):
        state = Preprocessor.fit(table, "label").to_dict()
        del state[name]
        refused(lambda state=state: Preprocessor.from_dict(state), f"preprocessor.{name}", "got nothing")
    refused(lambda: Preprocessor.from_dict([]), "a dictionary")
