"""The page as text: what it says, that it is sound HTML, and that nothing in a folder can become markup."""

from __future__ import annotations

import itertools
import json
import os
import re
from html.parser import HTMLParser

import pytest
from run_folders import HOSTILE, write_run

from tinynet.resources import write_report

FILES = (
    "history.json", "config.json", "metrics.json", "monitor.jsonl", "decisions.jsonl", "plan.json", "instructions.json",
)  # fmt: skip


class Parsed(HTMLParser):
    """The elements of a page in order, with their attributes; and its text but for styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"{tag} ends what it did not begin"

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data if data[:1].isspace() or not self.text else f" {data}"


def page(*folders, path=None):
    with open(write_report(*folders, path=path), encoding="utf-8") as file:
        text = file.read()
    return text, Parsed(text)


def said(*folders):
    return re.sub(r"\s+", " ", page(*folders)[1].text)


@pytest.mark.parametrize("runs", [1, 2])
def test_the_page_is_sound_and_stands_alone(tmp_path, runs):
    text, parsed = page(*(write_run(tmp_path / name, batch=batch) for name, batch in (("a", 32), ("b", 64))[:runs]))
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "image", "use", "base"}
    urls = [value for _, attrs in parsed.elements for name, value in attrs.items() if name in ("href", "src")]
    assert urls and all(url.startswith("#") for url in urls)
    assert not re.search(r"https?:|@import|url\(", text.replace("http://www.w3.org/2000/svg", ""))
    identities = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(identities) == len(set(identities)) and {url[1:] for url in urls} <= set(identities)
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all("scope" in attrs for tag, attrs in parsed.elements if tag == "th")
    names = [tag for tag, _ in parsed.elements]
    pictures = [i for i, tag in enumerate(names) if tag == "svg"]
    assert pictures and all("title" in names[i + 1 : i + 2] for i in pictures)
    assert all(attrs.get("role") == "img" for tag, attrs in parsed.elements if tag == "svg")


def test_nothing_in_a_folder_becomes_markup(tmp_path):
    tame, wild = (page(write_run(tmp_path / name, text=text)) for name, text in (("tame", None), ("wild", HOSTILE)))
    assert "alert(1)" in wild[1].text, "the words are there, as words"
    assert "script" not in {tag for tag, _ in wild[1].elements}
    assert not any(name.startswith("on") for _, attrs in wild[1].elements for name in attrs)
    assert {tag for tag, _ in wild[1].elements} == {tag for tag, _ in tame[1].elements}


def test_names_of_fields_are_escaped_as_well(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "config.json").write_text(json.dumps({"settings": {HOSTILE: {HOSTILE: [HOSTILE]}}, HOSTILE: 1}))
    (folder / "history.json").write_text(json.dumps({"epochs": [{"epoch": 1, f"valid_{HOSTILE}": 3.0, HOSTILE: 1}]}))
    (folder / "metrics.json").write_text(json.dumps({"test": {HOSTILE: 3}, HOSTILE: HOSTILE}))
    _, parsed = page(folder)
    assert "script" not in {tag for tag, _ in parsed.elements}
    assert not any(name.startswith("on") for _, attrs in parsed.elements for name in attrs)


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    folder = write_run(tmp_path / "run")
    first, _ = page(folder, path=tmp_path / "one.html")
    for name in FILES:
        os.utime(folder / name, (1, 1))
    assert page(folder, path=tmp_path / "two.html")[0] == first


@pytest.mark.parametrize("name", FILES)
def test_what_is_missing_is_said_with_how_to_get_it(tmp_path, name):
    words = said(write_run(tmp_path / "run", without=(name,)))
    how = re.search(rf"{re.escape(name)} is missing: (.{{100}})", words)
    assert how and re.search(r"callbacks of tn\.fit|tinynet train' writes it", how[1])
    assert f"{name} is missing" not in said(write_run(tmp_path / "whole"))


def test_the_first_paragraph_says_what_when_and_where(tmp_path):
    words = said(write_run(tmp_path / "digits"))
    for part in (
        "Run digits",
        "hidden layers of 128, 64 (9,610 parameters) was trained on digits for 12 epochs in batches of 32 with Adam.",
        "It began at 2026-01-02 03:04:05 and ended at 03:04:17 UTC.",
        "A processor of 3 GHz",
        "Python 3.12.1",
    ):
        assert part in words


def test_numbers_have_their_units(tmp_path):
    words = said(write_run(tmp_path / "run"))
    for part in (
        "test accuracy 96.53 %", "arena of a step 56 KiB", "380 GFLOP/s", "23 GB/s of memory", "57,344 bytes",
        "21.0 µs", "with Python, its libraries, compiled kernels and the data, grew from 49.66 MB to 109.2 MB",
    ):  # fmt: skip
        assert part in words


def test_slow_instructions_stand_beside_the_roof(tmp_path):
    words = said(write_run(tmp_path / "run"))
    row = re.search(r"linear 32x64 64x128, step.py:25, on native (\S+) (\S+) (\S+) (\S+) (\S+)", words)
    assert row and row.groups() == ("4.2", "23%", "126", "13.8", "60%")  # 57,856 bytes at 23 GB/s are 60 % of 4.2 µs


def test_decisions_are_told_with_their_reasons(tmp_path):
    words = said(write_run(tmp_path / "run"))
    assert "2.8 s 120 batch size 32 → 16 memory.high fell" in words
    (tmp_path / "run" / "decisions.jsonl").write_text("")
    assert "The controller decided nothing." in said(tmp_path / "run")


# ---- energy ----


@pytest.mark.parametrize(
    ("provenance", "words", "number"),
    [
        ("measured", "247.8 J were measured by counters", True),
        ("modelled", "247.8 J were modelled, that is estimated and not measured", True),
        ("unavailable", "The energy is unavailable", False),
        ("guessed", "the provenance of the joules is told as 'guessed'", False),
        (None, "the provenance of the joules is told as 'None'", False),
    ],
)
def test_energy_is_told_with_its_provenance_or_not_at_all(tmp_path, provenance, words, number):
    found = said(write_run(tmp_path / "run", provenance=provenance))
    assert words in found and "10 to 25 W for each busy core" in found
    assert ("247.8" in found) is number


def test_energies_of_two_kinds_are_not_added(tmp_path):
    folder = write_run(tmp_path / "run")
    path = folder / "monitor.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace("modelled", "measured"), *lines[1:]]) + "\n")
    found = said(folder)
    assert "No sum is given, since the numbers are of several kinds: measured, then modelled" in found
    assert "247.8" not in found


def test_a_run_that_was_taken_up_again_counts_its_energy_on(tmp_path):
    folder = write_run(tmp_path / "run")
    path = folder / "monitor.jsonl"
    path.write_text(path.read_text() + path.read_text().replace('"time": 17', '"time": 18'))
    assert "495.6 J were modelled" in said(folder)


def test_energy_of_epochs_serves_where_there_is_no_monitor(tmp_path):
    folder = write_run(tmp_path / "run", without=("monitor.jsonl",))
    history = json.loads((folder / "history.json").read_text())
    for row in history["epochs"]:
        row |= {"joules": 2.5, "energy_provenance": "measured"}
    (folder / "history.json").write_text(json.dumps(history))
    assert "30 J in all epochs were measured" in said(folder)
    history["epochs"][3]["joules"] = None
    (folder / "history.json").write_text(json.dumps(history))
    assert "1 of 12 epochs have no joules" in said(folder)


def test_joules_among_the_results_need_a_provenance_too(tmp_path):
    for name, provenance in (("a", {}), ("b", {"provenance": "modelled"})):
        folder = write_run(tmp_path / name)
        used = {"used_joules": 77.5, "limit_joules": 99, **provenance}
        (folder / "metrics.json").write_text(json.dumps({"energy": used}))
    words = said(tmp_path / "a", tmp_path / "b")
    assert "not told, so no number is shown 77.5 J, provenance: modelled" in words and words.count("77.5") == 1


# ---- two runs ----


def test_two_runs_share_their_axes_and_differences_are_listed(tmp_path):
    text, parsed = page(write_run(tmp_path / "one"), write_run(tmp_path / "two", batch=64, speed=0.5, epochs=20))
    words = re.sub(r"\s+", " ", parsed.text)
    assert "Runs one and two" in words
    assert "batch 32 64" in words and "seconds 12 s 40 s" in words
    assert "dropout" not in words.split("Differences")[2].split("Loss")[0], "they have that in common"
    loss = text.split("<strong>Loss</strong>")[1].split("</svg>")[0]
    names = re.findall(r">([AB] (?:train|valid|test)) [\d.]+<", loss)
    assert names == [f"{run} {part}" for run in "AB" for part in ("train", "valid", "test")]
    assert len(text.split("<strong>Roofline</strong>")) == 2


def test_a_run_beside_itself_does_not_differ(tmp_path):
    folder = write_run(tmp_path / "run")
    words = said(folder, folder)
    assert "Configuration: no difference." in words and "Results: no difference." in words


def test_a_run_without_a_file_is_named_beside_one_with_it(tmp_path):
    words = said(write_run(tmp_path / "a"), write_run(tmp_path / "b", without=("plan.json",)))
    assert re.search(r"B plan\.json is missing", words) and not re.search(r"A plan\.json is missing", words)
