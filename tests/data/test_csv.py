"""csv: from a file to a training and a test set, with nothing learned from the test rows."""

import numpy as np
import pytest

from tinynet.data import csv, read_table
from tinynet.errors import ArgumentError, DataError


def flowers(n=60):
    kinds = ["rose", "lily", "iris"]
    return "size,colour,kind\n" + "".join(f"{i},{'red' if i % 2 else 'blue'},{kinds[i % 3]}\n" for i in range(n))


def test_a_classification_gives_indices_with_class_names(write_csv):
    train, test = csv(write_csv(flowers()), "kind")
    assert (len(train), len(test)) == (48, 12)
    assert train.x.dtype == np.float32 and train.x.shape == (48, 3)
    assert train.y.dtype == np.int64 and train.y.shape == (48,)
    assert train.classes == test.classes == ("iris", "lily", "rose")
    assert train.names == ("size", "colour=blue", "colour=red")
    assert np.bincount(test.y).tolist() == [4, 4, 4]
    assert train.preprocessor is test.preprocessor is train[:5].preprocessor


def test_a_regression_gives_a_standardised_column(write_csv):
    train, test = csv(write_csv(flowers()), "size")
    assert train.y.shape == (48, 1) and test.y.shape == (12, 1) and train.y.dtype == np.float32
    assert train.classes is None and abs(float(train.y.mean())) < 1e-6
    back = np.concatenate([train.preprocessor.inverse_target(part.y) for part in (train, test)])
    np.testing.assert_allclose(np.sort(back[:, 0]), np.arange(60), atol=1e-4)


def test_nothing_is_learned_from_the_rows_held_out(write_csv):
    train, test = csv(write_csv(flowers()), "kind", seed=3)
    sizes = train.preprocessor.columns[0]
    assert abs(float(train.x[:, 0].mean())) < 1e-6 and abs(float(test.x[:, 0].mean())) > 1e-3
    assert sizes.mean != np.arange(60).mean()


def test_the_seed_decides_the_rows_held_out(write_csv):
    path = write_csv(flowers())
    x = [csv(path, "kind", seed=seed)[1].x for seed in (0, 0, 1)]
    np.testing.assert_array_equal(x[0], x[1])
    assert not np.array_equal(x[0], x[2])


def test_the_share_held_out_can_be_chosen(write_csv):
    path = write_csv(flowers())
    assert [len(csv(path, "kind", holdout=share)[1]) for share in (0, 0.5)] == [0, 30]
    for share in (-0.1, 1, float("nan")):
        with pytest.raises(ArgumentError, match="holdout"):
            csv(path, "kind", holdout=share)


@pytest.mark.parametrize("target", ["kind", "size"])
def test_fewer_than_ten_rows_are_all_trained_on(write_csv, target):
    train, test = csv(write_csv(flowers(9)), target)
    assert (len(train), len(test)) == (9, 0)
    assert test.x.shape == (0, train.x.shape[1]) and test.y.shape == (0, *train.y.shape[1:])
    assert [len(part) for part in csv(write_csv(flowers(10)), target)] == [8, 2]


def test_a_class_of_a_single_row_is_trained_on(write_csv):
    path = write_csv(flowers(30) + "99,red,orchid\n")
    for seed in range(10):
        train, test = csv(path, "kind", seed=seed)
        assert "orchid" in train.classes and train.classes.index("orchid") not in test.y


def test_the_task_can_be_chosen(write_csv):
    path = write_csv("a,y\n" + "".join(f"{i},{i % 3}\n" for i in range(60)))
    assert csv(path, "y")[0].classes == ("0", "1", "2")
    assert csv(path, "y", task="regression")[0].y.shape == (48, 1)
    with pytest.raises(ArgumentError, match="'guess'"):
        csv(path, "y", task="guess")


def test_faults_of_the_target_are_named(write_csv):
    with pytest.raises(DataError, match=r"table.csv: expected a column 'kin'.*Did you mean 'kind'\?"):
        csv(write_csv(flowers()), "kin")
    with pytest.raises(DataError, match=r"table.csv, line 62, column 'kind': .* got a missing cell\. Remove the row"):
        csv(write_csv(flowers() + "1,red,\n"), "kind")
    with pytest.raises(DataError, match=r"column 'kind': expected a number"):
        csv(write_csv(flowers()), "kind", task="regression")


def test_a_path_may_be_text_and_a_delimiter_given(write_csv):
    path = str(write_csv(flowers(12).replace(",", "|")))
    train, _ = csv(path, "kind", delimiter="|")
    assert len(train.names) == 3
    np.testing.assert_array_equal(train.preprocessor.transform(read_table(path, delimiter="|")).shape, (12, 3))
