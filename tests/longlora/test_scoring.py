"""Published measures, each against values worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longlora.evaluation.scoring.choices import letters, letters_score, truth_is
from longlora.evaluation.scoring.longbench import best, classification, edit_similarity, share_of_numbers
from longlora.evaluation.scoring.numbers import first_number_is, last_number_is, numbers
from longlora.evaluation.scoring.rouge import rouge_l, rouge_n
from longlora.evaluation.scoring.words import contains, f1, first_line, words

text = st.text(alphabet="ab c.é漢か", max_size=20)


def test_words_are_squads() -> None:
    assert words("The U.S. fleet’s  state-of-the-art Ship, an X") == ["us", "fleets", "stateoftheart", "ship", "x"]
    assert words("漢字、 a かな。b") == ["漢", "字", "か", "な", "b"]
    assert words("“…” $ — the") == []


@pytest.mark.parametrize(
    ("output", "expected", "inside", "shared"),
    [
        ("The Eiffel Tower.", "eiffel tower", 1, 1.0),
        ("It is the Eiffel Tower", "Eiffel Tower!", 1, 2 * (2 / 4) * 1 / (2 / 4 + 1)),
        ("tower eiffel", "eiffel tower", 0, 1.0),
        ("tower tower", "eiffel tower", 0, 0.5),  # the second one counts for nothing
        ("eiffel towers", "eiffel tower", 0, 0.5),
        ("in 1889", "1887", 0, 0.0),
        ("", "eiffel", 0, 0.0),
        ("", "the", 0, 1.0),
        ("漢字", "漢", 1, 2 / 3),
    ],
)
def test_words_in_common(output: str, expected: str, inside: float, shared: float) -> None:
    assert contains(output, expected) == inside
    assert f1(output, expected) == pytest.approx(shared)


@given(text, text)
def test_f1_is_symmetric_and_whole_only_for_the_same_words(a: str, b: str) -> None:
    assert f1(a, b) == f1(b, a)
    assert (f1(a, b) == 1) == (sorted(words(a)) == sorted(words(b)))


def test_first_line() -> None:
    assert first_line("\n  \n  a b \nc") == "a b" and first_line(" \n") == ""


# The examples of Lin 2004, section 3.1: reference "police killed the gunman".
@pytest.mark.parametrize(
    ("output", "one", "two", "longest"),
    [
        ("police kill the gunman", 3 / 4, 1 / 3, 3 / 4),
        ("the gunman kill police", 3 / 4, 1 / 3, 2 / 4),
        ("the gunman police killed", 4 / 4, 2 / 3, 2 / 4),
        ("Police, killed: the-gunman!", 1.0, 1.0, 1.0),
        ("killed", 2 * 1 * (1 / 4) / (1 + 1 / 4), 0.0, 2 / 5),
        ("", 0.0, 0.0, 0.0),
    ],
)
def test_rouge(output: str, one: float, two: float, longest: float) -> None:
    reference = "police killed the gunman"
    assert rouge_n(output, reference, 1) == pytest.approx(one)
    assert rouge_n(output, reference, 2) == pytest.approx(two)
    assert rouge_l(output, reference) == pytest.approx(longest)


def test_rouge_counts_a_repeated_word_as_often_as_both_have_it_and_chinese_by_sign() -> None:
    assert rouge_n("a a a b", "a a c", 1) == pytest.approx(2 * 2 / 7)
    assert rouge_n("", "", 1) == rouge_l("...", "...") == 0
    assert rouge_l("我们去学校", "我们回学校") == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("It costs $1,234.50, then 18.", [1234.5, 18]),
        ("3,4 and -5 but 7-2", [3, 4, -5, 7, 2]),
        ("<REGISTER> is <24169>.", [24169]),
        ("x12 v1.5 .5 1,2345", [12, 1.5, 0.5, 1, 2345]),
        ("none", []),
    ],
)
def test_numbers(output: str, expected: list[float]) -> None:
    assert numbers(output) == expected


def test_first_and_last_number() -> None:
    assert (
        first_number_is("The key is 12,345 (not 7).", "12345") == last_number_is("3 + 4 = 7.", "3 and then #### 7") == 1
    )
    assert first_number_is("7 or 12345", 12345) == last_number_is("7 = 3 + 4", "7") == 0
    assert first_number_is("no", "no") == last_number_is("", "") == 0
    assert last_number_is("$18.00", "18") == 1


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("B", "B"),
        ("(B) They were tired of A and C", "B"),
        ("The correct answer is (C).", "C"),
        ("A boat lies in B, so the answer is: D", "D"),
        ("Option A is right, B is not", "A"),
        ("A is right because C is wrong", "A"),
        ("A, C and D.", "ACD"),
        ("ACD", "ACD"),
        ("(A) (B) & D", "ABD"),
        ("The answers are:\nA. One thing\nC. Another", "AC"),
        ("B\n\nQuestion: and now?\nA. One\nB. Two", "B"),
        ("B\nQuestion A", "B"),
        ("A man had a BAD DAY and it's C's fault", ""),
        ("I do not know", ""),
    ],
)
def test_letters(output: str, expected: str) -> None:
    assert letters(output) == frozenset(expected)


@pytest.mark.parametrize(
    ("output", "expected", "score"),
    [
        ("b is no letter: B", "(B) As it was", 1),
        ("C", "B", 0),
        ("A and B", "B", 0),  # of one right option, no part
        ("D, A, C", "ACD", 1),
        ("A", "ACD", 0.25),
        ("A, C", "ACD", 0.25),
        ("A, B", "ACD", 0),  # a wrong one
        ("ABCD", "ACD", 0),
        ("", "ACD", 0),
        ("nothing", "nothing", 0),
    ],
)
def test_letters_score(output: str, expected: str, score: float) -> None:
    assert letters_score(output, expected) == score


def test_true_or_false() -> None:
    assert truth_is("The statement is FALSE, not true.", "False") == 1
    assert truth_is("true", "False") == truth_is("truth", "True") == truth_is("", "True") == 0


def test_best_of_several_answers() -> None:
    assert best(f1, "grey cat", ["dog", "cat", "grey dog cat"]) == pytest.approx(4 / 5)
    assert best(f1, "cat", []) == 0


@pytest.mark.parametrize(
    ("output", "score"),
    [
        ("winter sport", 1),  # "sport" is part of the right name
        ("winter sport or food", 1 / 2),
        ("winter sport, food, travel", 1 / 3),
        ("sport", 0),
        ("food", 0),
        ("", 0),
    ],
)
def test_classification(output: str, score: float) -> None:
    classes = ["sport", "winter sport", "food", "travel"]
    assert classification(output, "winter sport", classes) == pytest.approx(score)


def test_shares_of_numbers() -> None:
    assert share_of_numbers("Paragraph 12", "Paragraph 12") == share_of_numbers("段落7", "段落7") == 1
    assert share_of_numbers("It is 12, or 3, or 12 or 4", "12") == 2 / 4
    assert share_of_numbers("112", "12") == share_of_numbers("none", "12") == share_of_numbers("", "") == 0


def test_edit_similarity() -> None:
    # 4 signs each; "abcd" to "abed" is one sign out and one in: 1 - 2 / 8
    assert edit_similarity("abed", "abcd") == pytest.approx(6 / 8)
    assert edit_similarity("\n```python\n# a comment\n// too\nabcd\nmore", "abcd") == 1
    assert edit_similarity("", "abcd") == edit_similarity("# abcd", "abcd") == 0
