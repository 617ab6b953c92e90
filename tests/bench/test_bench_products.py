"""The table of matrix products in the benchmark: which there are, what is attempted again, what is told.

No time decides anything here.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # bench is run from the checkout and is not installed

from bench import peers, products, report, sections  # noqa: E402
from bench.processes import PeerError, PeerUnsupported  # noqa: E402
from bench.products import BLAS, DISPATCHED, OWN, Shape  # noqa: E402
from bench.sections import SECTIONS, Session  # noqa: E402


def is_prime(n):
    return all(n % i for i in range(2, int(n**0.5) + 1))


def test_the_table_has_squares_odd_and_prime_sizes_thin_ones_and_transposes():
    table = products.table()
    assert len(set(table)) == len(table)
    assert all(32 <= size <= 4096 for shape in table for size in shape[:3])
    squares = {shape.m for shape in table if shape.m == shape.k == shape.n}
    assert {2**i for i in range(5, 13)} <= squares
    assert sum(map(is_prime, squares)) >= 5 and any(size % 2 and not is_prime(size) for size in squares)
    assert {"m", "k", "n"} == {
        name for shape in table for name in "mkn" if min(shape[:3]) == getattr(shape, name) < max(shape[:3]) / 50
    }
    for size in products.IN_FOUR_LAYOUTS:
        assert {shape.layout for shape in table if shape[:3] == size} == {"NN", "TN", "NT", "TT"}, size
    assert set(products.short_table()) <= set(table)


def attempt(dispatched, own, blas, disturbed=False, way=OWN):
    """One of three rounds that took these seconds, or for each version as many as its list has."""
    rounds = {DISPATCHED: dispatched, OWN: own, BLAS: blas}
    rounds = {name: each if isinstance(each, list) else [each] * 3 for name, each in rounds.items()}
    return {"rounds": rounds, "share": dict.fromkeys(rounds, 0.9), "peak": 1e11, "way": way, "note": "",
            "disturbed": disturbed}  # fmt: skip


def test_the_least_medians_count_and_disturbed_attempts_only_where_there_are_no_others():
    found = products.joined([attempt(1.2, 1.0, 3.0), attempt(1.1, 1.3, 2.0)])
    assert found["seconds"] == {DISPATCHED: 1.1, OWN: 1.0, BLAS: 2.0}
    found = products.joined([attempt(0.5, 1.0, 1.0, disturbed=True), attempt(2.0, 1.0, 1.0)])
    assert found["ratio"] == 2.0 and found["attempts"] == 2 and not found["disturbed"]
    assert products.joined([attempt(1.0, 1.0, 1.0, disturbed=True)])["disturbed"]


@pytest.mark.parametrize(("attempts", "ratio"), [
    ([attempt([1.0, 2.0, 4.0], [1.0, 2.0, 4.0], 8.0)], 1.0),  # a machine that becomes slower
    ([attempt([2.0, 2.0, 2.0], [1.0, 4.0, 1.0], 8.0)], 2.0), ([attempt(3.0, 9.0, [2.0, 1.0, 4.0])], 1.5),
    ([attempt(1.2, 1.0, 9.0), attempt(1.1, 1.0, 9.0), attempt(1.0, 1.0, 9.0)], 1.1),
])  # fmt: skip
def test_versions_are_compared_round_by_round_and_the_median_of_all_rounds_counts(attempts, ratio):
    assert products.joined(attempts)["ratio"] == pytest.approx(ratio)


@pytest.mark.parametrize(("one", "two", "doubtful"), [
    (attempt(1.0, 1.0, 2.0), attempt(0.5, 0.5, 1.0), []), (attempt(1.06, 1.0, 2.0), attempt(0.5, 0.5, 1.0), [1]),
    (attempt(1.0, 1.0, 2.0), attempt(0.6, 0.6, 1.0), [2]), (attempt(1.0, 1.0, 2.0), attempt(0.5, 0.6, 0.4), [2]),
    (attempt(1.0, 1.0, 2.0, disturbed=True), attempt(0.5, 0.5, 1.0), [1]),
])  # fmt: skip
def test_what_misses_an_aim_or_was_disturbed_is_doubtful(one, two, doubtful):
    def found(shape):
        made = products.described(shape, {1: [one], 2: [two]}, {})
        return [cores for cores, each in made.items() if products.is_doubtful(each)]

    assert found(Shape(256, 256, 256)) == doubtful
    gains = two["rounds"][DISPATCHED][0] == 0.6
    assert found(Shape(255, 256, 256)) == ([] if gains else doubtful)  # of which two cores need not gain


class Scripted:
    """Stands for a process: answers the requests for each product from a list, the last one again and again."""

    def __init__(self, cores, answers, asked):
        self.cores, self.answers, self.asked, self.process, self.given = cores, answers, asked, None, {}

    def ask(self, op, timeout=600, **request):
        if op == "hello":
            return {"version": "1"}
        name = str(Shape(*request["shape"]))
        self.asked.append((name, self.cores))
        answers = self.answers.get((name, self.cores), [attempt(1.0 / self.cores, 1.0 / self.cores, 2.0)])
        answer = answers[min(self.given.get(name, 0), len(answers) - 1)]
        self.given[name] = self.given.get(name, 0) + 1
        if isinstance(answer, Exception):
            raise answer
        self.last = answer
        return answer

    def close(self):
        pass

    def quiet(self):
        pass


class Watched:
    """Stands for what looks whether others are in the way of a process: they are where its answer says so."""

    def __init__(self, process):
        self.process = process

    def disturbed(self):
        return float(self.process.last["disturbed"])


@pytest.fixture
def section(monkeypatch):
    """Runs the section of the full table cut to three products; gives its rows and what was asked."""
    shapes = [Shape(32, 32, 32), Shape(257, 257, 257, "NT"), Shape(512, 512, 512)]
    monkeypatch.setattr(products, "table", lambda: shapes)
    monkeypatch.setattr(sections, "Watch", Watched)

    def run(answers, entries=peers.PEERS, cores=(1, 2)):
        asked, said = [], []
        monkeypatch.setattr(Session, "process", lambda self, entry, variant, on: Scripted(on, answers, asked))
        session = Session(sys.executable, list(cores), entries=list(entries), log=lambda *text: said.append(text))
        return list(SECTIONS["matmul"](session)), asked, said

    return run


def test_a_row_for_each_number_of_cores_holds_the_products_and_their_mean(section):
    rows, asked, said = section({})
    assert [row["cores"] for row in rows] == [1, 2] and len(asked) == 3 * 2 * 2  # two attempts at least
    for row in rows:
        names = ["NN 32 x 32 x 32", "NT 257 x 257 x 257", "NN 512 x 512 x 512"]
        assert [each["name"] for each in row["products"]] == names
        assert row["cells"]["tinynet"]["median"] == pytest.approx(1.0 / row["cores"])
        assert row["cells"]["numpy"]["ratio"]["median"] == pytest.approx(2.0 * row["cores"])
    assert [each["gain"] for each in rows[1]["products"]] == [2.0] * 3 and "gain" not in rows[0]["products"][0]
    assert "0 of 3 dispatched products slower than the best by more than 5%" in said[-1][-1]


def test_a_product_that_seems_slow_is_attempted_again_before_it_is_told(section):
    name = "NT 257 x 257 x 257"
    passing = section({(name, 1): [attempt(1.2, 1.0, 2.0), attempt(1.0, 1.0, 2.0), attempt(1.0, 1.0, 2.0)]})
    staying = section({(name, 1): [attempt(1.2, 1.0, 2.0)]})
    (one, _), asked, _ = passing
    assert asked.count((name, 1)) == 3 and one["products"][1]["ratio"] == 1.0
    (one, _), asked, _ = staying
    assert asked.count((name, 1)) == asked.count((name, 2)) == 5
    assert one["products"][1]["ratio"] == 1.2
    assert f"1 of 3 dispatched products slower than the best by more than 5%; worst {name}: 1.20" in products.summary(
        one["products"]
    )


def test_what_was_disturbed_at_every_attempt_says_nothing_of_an_aim(section):
    name = "NN 512 x 512 x 512"
    (one, two), asked, _ = section({(name, 1): [attempt(9.0, 1.0, 2.0, disturbed=True)]})
    assert asked.count((name, 1)) == 5 and one["products"][2]["disturbed"] and "gain" not in two["products"][2]
    told = products.summary(one["products"])
    assert told.startswith("0 of 2 dispatched") and "1 more were disturbed" in told


def test_a_product_that_fails_is_a_line_of_its_own(section):
    rows, asked, _ = section({("NN 512 x 512 x 512", 2): [PeerError("AssertionError: BLAS")]})
    assert asked.count(("NN 512 x 512 x 512", 2)) == 1
    assert rows[1]["products"][2]["state"] == "failed: AssertionError: BLAS" and "2 products" in rows[1]["workload"]
    assert "not measured: NN 512 x 512 x 512" in products.summary(rows[1]["products"])
    page = report.markdown({"name": "x", "command": "", "date": "", "peers": {}, "rows": rows, "machine": {
        "processor": "P", "cores": 2, "caches": {}, "governor": None, "system": "S", "load_before": 0.1,
    }})  # fmt: skip
    assert "tinynet: failed: AssertionError: BLAS (NN 512 x 512 x 512, cores 2)" in page
    lines = [line for line in page.split("## Matrix products")[1].splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3 * 2 and len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| NN 32 x 32 x 32 | 1 |") and "| own kernel | 90% | 1.00 | - |" in lines[2]
    assert lines[3].endswith("| 1.00 | 2.00 |") and "| failed |" in lines[-1]
    assert "cores 2: 0 of 2 dispatched products slower than the best" in page


def test_who_cannot_take_part_is_told_by_name(section):
    rows, _, _ = section({("NN 32 x 32 x 32", 1): [PeerUnsupported("the own kernel needs Numba")]})
    assert [row["cells"]["tinynet"]["state"] for row in rows] == ["no part: the own kernel needs Numba"] * 2
    rows, asked, _ = section({}, [entry for entry in peers.PEERS if entry.name != "tinynet"])
    assert all("tinynet is not among the peers" in row["cells"]["tinynet"]["state"] for row in rows) and not asked


def test_without_numba_there_is_no_own_kernel():
    code = "import sys; sys.modules['numba'] = None; from bench import products; "
    code += "products.measured(products.Shape(3, 4, 5), 1, 0.0)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode and "Unsupported: the own kernel needs Numba" in found.stderr


def test_a_wrong_product_is_found():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-3, 4, shape).astype("float32") for shape in ((7, 5), (5, 9)))
    c = np.empty((7, 9), "float32")

    def almost():
        np.matmul(a, b, out=c)
        c[6, 8] += 1

    products.check("right", lambda: np.matmul(a, b, out=c), c, a, b)
    for call in (almost, lambda: np.matmul(a[:6], b, out=c[:6])):  # which leaves a row as it was
        with pytest.raises(AssertionError, match="this one"):
            products.check("this one", call, c, a, b)


@pytest.mark.parametrize("shape", [Shape(33, 37, 61, "TN"), Shape(64, 40, 48, "NT")], ids=str)
def test_a_process_measures_all_three_versions(shape):
    pytest.importorskip("numba")
    found = products.measured(shape, 1, 0.0)
    assert set(found["rounds"]) == set(found["share"]) == {DISPATCHED, OWN, BLAS}
    assert min(map(min, found["rounds"].values())) > 0 and found["peak"] > 0 and found["way"] in (OWN, BLAS)
