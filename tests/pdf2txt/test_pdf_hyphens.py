"""Hyphens at line ends: what must go, what must stay, and what the document says about it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdf2txt import hyphens
from pdf2txt.compounds import compounds
from pdf2txt.hyphens import Vocabulary, join
from pdf2txt.lexicon import lexicon


def joined(pair: str, language: str, *lines: str) -> str:
    """``pair``, "left-|right", as it stands in the text, the document being ``lines``."""
    vocabulary = Vocabulary(language)
    vocabulary.add(lines)
    left, right = pair.split("|")
    left, separator = join(left, right, vocabulary)
    return left + separator + right


ENGLISH = {
    "go": "exam-|ple infor-|mation some-|thing with-|out under-|stand hap-|piness lan-|guage's of-|ten "
    "gram-|mars unfor-|tunately re-|main to-|gether after-|wards counter-|part EX-|AMPLES before-|hand "
    "CALIBRA-|TION clima-|tologists.net tide-|gaugelab.org How_to_con-|tribute",
    "stay": "long-|term well-|known self-|made rule-|based user-|friendly twenty-|five half-|eaten cost-|effective "
    "Navier-|Stokes CD-|ROM x-|ray state-|of-the-art mother-in-|law's risk-|averse non-|linear-looking "
    "hard-|working hand-|crafted thread-|safe",
}
GERMAN = {
    "go": "Bei-|spiel Haupt-|straße Unter-|suchung Donaudampf-|schifffahrt mitein-|ander über-|legen "
    "Sicherheits-|werkzeug Netz-|werke Kinder-|garten auf-|gefallen",
    "stay": "Text-|Ebene E-|Mail-Adresse E-Mail-|Adresse Nord-|Süd-Gefälle deutsch-|französisch GNU-|lizenziert "
    "Baden-|Württemberg US-|amerikanisch",
}


@pytest.mark.parametrize(("language", "words"), [("en", ENGLISH), ("de", GERMAN)])
def test_word_frequencies_decide_where_the_document_says_nothing(language: str, words: dict[str, str]):
    wrong = [pair for pair in words["go"].split() if joined(pair, language) != pair.replace("-|", "")]
    wrong += [pair for pair in words["stay"].split() if joined(pair, language) != pair.replace("|", "")]
    assert not wrong


def test_the_document_outvotes_the_frequencies():
    assert joined("to-|day", "en") == "today"
    assert joined("to-|day", "en", "from to-day on") == "to-day" == joined("to-|day", "en", "not to-morrow")
    assert joined("long-|term", "en", "the longterm plan") == "longterm"
    assert joined("five-per-|cent", "en", "a five-per-cent loan of ten percent") == "five-per-cent"
    assert joined("cross-brow-|ser", "en", "cross-browser tests") == "cross-browser"
    assert joined("photo-|graphs", "en", "a photo-graph") == "photo-graphs"  # another form of the same word
    assert joined("La-|TeX", "de", "mit LaTeX gesetzt") == "LaTeX" and joined("La-|TeX", "de") == "La-TeX"


def test_old_books_are_told_by_their_words():
    old = "Upon my word, madam, whom thou lovest shall exclaimed alas." + 300 * " word"
    assert joined("to-|day", "en", old) == "to-day" and joined("to-|day", "en", old, "today") == "today"
    assert joined("to-|day", "en", "The file shall be sent today.") == "today"
    assert joined("farm-|house", "en", old) == "farm-house" and joined("farm-|house", "en") == "farmhouse"
    assert joined("house-|hold", "en", old) == "household"
    assert Vocabulary("de").archaic() == 0
    known = Vocabulary("en")
    known.add([old])
    before = known.archaic()
    known.add(["the plain words of another page"] * 20)
    assert before > known.archaic() > 0


def test_capitals_inside_a_word_are_no_compound():
    assert joined("SQ-|Lite", "en", "the library SQLite") == "SQLite" and joined("SQ-|Lite", "en") == "SQ-Lite"
    assert joined("SE-|LECT", "en") == "SELECT" and joined("CD-|ROM", "en") == "CD-ROM"


def test_a_list_of_compounds_knows_words_parts_and_endings():
    listed = compounds("en")
    assert listed is not None and compounds("de") is None and compounds("") is None
    assert listed.has("long", "term") and listed.has("mother", "in") and listed.has("baby", "sitters")
    assert not listed.has("exam", "ple")
    assert listed.begins("self") > 50 > listed.begins("exam") == 0 and listed.ends("based") > 50 > listed.ends("ple")


def test_suspended_hyphens_keep_their_space():
    assert joined("short-|and long-term", "en") == "short- and long-term"
    assert joined("Vor-|und Nachteile", "de") == "Vor- und Nachteile"
    assert joined("i386-|oder ARM-Rechner", "de") == "i386- oder ARM-Rechner"
    assert joined("pre- and post-|war", "en") == "pre- and post-war"
    assert joined("Vor- und Nach-|teile", "de") == "Vor- und Nachteile"
    assert joined("toma-|to, please", "en") == "tomato, please"
    assert joined("Ein-|/Ausgabe", "de") == "Ein-/Ausgabe"
    assert joined("Ausschneiden-|und-Einfügen", "de") == "Ausschneiden-und-Einfügen"


@pytest.mark.parametrize(
    "pair",
    ["--some-|flag", "/usr/share/doc/users-|and-groups", "my_long-|name", "apt-|listchanges(1)", "jane@some-|host.org",
     "https://example.org/some-|thing", "doi.org/10.1000/exam-|ple", "the 2019-|2020", "COVID-|19", "utf-|8"],
)  # fmt: skip
def test_names_of_things_keep_their_hyphens(pair: str):
    assert joined(pair, "en", "something example") == pair.replace("|", "")


@pytest.mark.parametrize(
    ("left", "right", "between"),
    [
        ("Sensing, 3(1). https://doi.", "org/10.1002/rse2.31", ""),
        ("see www.", "example.org/data for more", ""),
        ("https://doi.org/10.1111/j.", "1365-2966.2008.13422.x", ""),
        ("It runs at http://localhost.", "It needs a port.", " "),
        ("https://example.org.", "and/or elsewhere", " "),  # the address may end here
        ("See doi.", "org/mode is an editor's", " "),
    ],
)
def test_an_address_cut_behind_a_dot_is_whole_again(left: str, right: str, between: str):
    assert join(left, right, Vocabulary("en")) == (left, between)


def test_marks_of_the_text_layer_are_hyphens():
    known = Vocabulary("en")
    assert join("an exam\x02", "ple", known) == ("an exam", "")
    assert join("an exam\u00ad", "ple", known) == ("an exam", "")
    assert join("a long\u2010", "term", known) == ("a long-", "")
    assert join("no hyphen", "here", known) == ("no hyphen", " ")


def test_a_language_without_frequencies_leaves_it_to_the_document():
    assert lexicon("la") is None
    assert joined("proba-|bile", "la") == "probabile"
    assert joined("terra-|mare", "la", "terra et mare") == "terra-mare"


WORDS = st.text(alphabet="abcdeéüß-’ \x02", max_size=30)


@given(st.lists(st.lists(WORDS, max_size=6), max_size=4), st.sampled_from(["", "en", "de"]))
@settings(max_examples=100, deadline=None)
def test_parts_counted_apart_are_the_whole(parts: list[list[str]], language: str):
    whole, merged = Vocabulary(language), Vocabulary(language)
    for lines in parts:
        whole.add([*lines, "."])
        part = Vocabulary(language)
        part.add(lines)
        merged.merge(Vocabulary.from_dict(json.loads(json.dumps(part.to_dict()))))
    # Only a word that the end of a part breaks is counted by the one and not by the other.
    broken = [lines for lines in parts if lines and lines[-1].rstrip().endswith(tuple(hyphens.MARKS))]
    if not broken:
        assert (merged.words, merged.hyphened) == (whole.words, whole.hyphened)
    assert merged.to_dict()["language"] == language


@given(WORDS.map(lambda s: s + "-"), WORDS)
@settings(max_examples=150, deadline=None)
def test_a_join_only_takes_the_hyphen_or_adds_a_space(left: str, right: str):
    vocabulary = Vocabulary("de")
    kept, separator = join(left, right, vocabulary)
    assert kept in (left.rstrip(), left.rstrip()[:-1]) and separator in ("", " ")


def test_a_vocabulary_forgets_the_rarest_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hyphens, "LIMIT", 100)
    known = Vocabulary("en")
    known.add(["often often"] + ["word" + chr(97 + n % 26) + chr(97 + n // 26) for n in range(400)])
    assert len(known.words) <= 100 and known.words["often"] == 2


def test_a_lexicon_knows_frequencies_and_parts():
    english = lexicon("en")
    assert english is not None and lexicon("en") is english and len(english) > 300_000
    assert english.zipf("the") > english.zipf("house") > english.zipf("arboretum") > 0 == english.zipf("qzxv")
    assert english.begins("un")[0] > english.begins("self")[0]
    total, known = english.ends("ness")
    assert total > known > 20


@pytest.mark.parametrize(
    ("pair", "text"),
    [
        ("港口委员会于三月|举行会议", "港口委员会于三月举行会议"),
        ("かな|カナ", "かなカナ"),
        ("会议，|然后", "会议，然后"),
        ("完了。|（注）", "完了。（注）"),
        ("𠀀|一", "𠀀一"),
        ("第12|条", "第12 条"),
        ("港口|harbour", "港口 harbour"),
        ("한국|어", "한국 어"),
    ],
)
def test_scripts_without_spaces_are_joined_without_one(pair: str, text: str):
    assert joined(pair, "en") == text
