"""The times that the guide states are those that `python -m tests.times` counts."""

import re

import nbformat
import pytest

from tests import times
from vqlearn.course import copying

markdown, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell


def all_text(path) -> str:
    return "\n".join(cell.source for cell in copying.read(path).cells if cell.cell_type == "markdown")


def test_a_notebook_made_by_hand():
    """300 words, two numbered equations and ten lines of code: 2 + 6 + 2 minutes."""
    cells = [
        markdown("word " * 290 + "$$ a\n + b \\tag{1.1} $$ $$ c \\tag{1.2} $$"),
        code("x = 1\n\n" * 10),
        markdown("## Check yourself\n\n### Exercise 1: add\n★☆☆ · 5 minutes. " + "word " * 500),
        code("y = 1\n" * 50),
        markdown("### Exercise 2: build\n★★★ · 45 to 90 minutes. And so on."),
        markdown("## In one breath\n" + "word " * 6),
    ]
    found = times.measure(cells)
    assert found.reading == pytest.approx(10) and found.exercises == [(5, 5), (45, 90)]
    assert found.row("07") == "| 07 | 0.25 h | 5, 45 to 90 |\n"
    assert found.stated() == "15 minutes, exercises 50 to 95 more"


def test_sections_add_up_and_a_text_before_the_first_is_its_own():
    sections = times.measure(
        [
            markdown("# 05b\n" + "word " * 148 + "\n## 5b.1 A\n" + "word " * 297),
            code("## 5b.7 is a comment\nx = 1"),
            markdown("tail " * 150 + "\n## 5b.2 B\n" + "word " * 447),
            markdown("## Check yourself\n" + "word " * 1500),
            markdown("## In one breath\n" + "word " * 146),
        ]
    ).sections
    assert sections == pytest.approx({"": 1, "1": 3.4, "2": 4})


def test_a_week_is_what_it_reads_and_hands_in():
    """Half of one notebook, another, two exercises, and a problem of 20 minutes."""
    found = {
        "05": times.Times({"": 1, "1": 20, "2": 30, "3": 400}, [(5, 5), (10, 10), (700, 800)]),
        "05b": times.Times({"": 40, "1": 50}, [(45, 90)]),
    }
    row = times.WEEK.match(
        "| 3 | 5.1 to 5.2; 05b; choice of project | 05.1 to 05.2, 05b.1 ★★★ 45; P4; milestone 1 | 2.5 |"
    )
    week = times._week(row, found, {"4": 20})
    assert week == ("3", 2.5, 51 + 90 + 15 + 45 + 20) and week.hours == 3.75


def test_the_guide_has_every_notebook_and_its_times():
    """A few words more or less may not move a row, so a quarter of an hour is left open."""
    found, stated = times.every(), times.table()
    assert list(stated) == list(found)
    for number, one in found.items():
        hours = float(stated[number].split("|")[2].removesuffix(" h "))
        assert abs(4 * hours - one.reading / 15) <= 1, f"{number}: run python -m tests.times --write"
        assert stated[number].rpartition(" h ")[2] == one.row(number).rpartition(" h ")[2]


def test_the_guide_adds_its_table_up():
    rows = times.table()
    found = times.every()
    stated = times.SUMS.search(times.GUIDE.read_text())
    reading = {number: float(row.split("|")[2].removesuffix(" h ")) for number, row in rows.items()}
    for some, hours, exercises in ((list(rows)[:8], stated[1], stated[2]), (list(rows), stated[4], stated[5])):
        assert float(hours) == sum(reading[number] for number in some)
        minutes = sum(low for number in some for low, _ in found[number].exercises)
        assert abs(60 * float(exercises) - minutes) <= 7.5


@pytest.mark.parametrize("plan", ["Four", "Eight", "Twelve"])
def test_the_weeks_of_the_syllabus_take_what_they_read_and_hand_in(plan):
    weeks = times.plans(times.every())[plan]
    (text,) = (found[0] for found in times.PLAN.finditer(times.SYLLABUS.read_text()) if found[1] == plan)
    assert [week.number for week in weeks] == [str(number + 1) for number in range(len(weeks))]
    for week in weeks:
        assert abs(60 * week.stated - week.minutes) <= 15, f"week {week.number}: run python -m tests.times --write"
    assert abs(float(times.TOTAL.search(text)[0]) - sum(week.stated for week in weeks)) <= 0.5


def test_the_syllabus_has_the_stars_and_minutes_of_the_cards():
    cards = {
        f"{path.stem.partition('_')[0]}.{number}": (stars, minutes)
        for path in copying.notebooks()
        for number, stars, minutes in re.findall(
            r"^### Exercise (\d+):.*\n([★☆]+) · (\d+(?: to \d+)?) minutes", all_text(path), re.M
        )
    }
    named = re.findall(r"\b(\d\db?\.\d+)(?: and \S+)? ([★☆]+) (\d+(?: to \d+)?)", times.SYLLABUS.read_text())
    assert len(named) > 40 and all(cards[name] == (stars, minutes) for name, stars, minutes in named)


@pytest.mark.parametrize("path", copying.notebooks(), ids=lambda path: path.stem)
def test_a_notebook_states_its_own_times(path):
    cells = copying.read(path).cells
    found, stated = times.measure(cells), times.STATED.search(cells[0].source)[1]
    reading, _, exercises = stated.partition(" minutes, ")
    assert abs(int(reading) - found.reading) <= 15, "run python -m tests.times --write"
    assert exercises == found.stated().partition(" minutes, ")[2]
