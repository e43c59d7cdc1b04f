"""Which language, and whether any: real text of many kinds passes, letters without words are found."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pdf2txt.language import alternation, detect_language, is_gibberish, vocabulary_rate

PROSE = {
    "en": """The harbour was quiet when the last boat came in. Nobody on the pier had expected it before the morning,
    and the lamps along the wall were already out. An old woman stood under the arch of the customs house, holding a
    basket with both hands, and counted the men as they climbed the ladder. There should have been seven. She counted
    again, slowly, moving her lips, while the skipper tied the rope and would not look at her.""",
    "de": """Der Hafen lag still, als das letzte Boot einlief. Niemand auf der Mole hatte es vor dem Morgen erwartet,
    und die Lampen an der Mauer waren schon gelöscht. Eine alte Frau stand unter dem Bogen des Zollhauses, hielt mit
    beiden Händen einen Korb und zählte die Männer, die über die Leiter heraufkamen. Sieben hätten es sein sollen. Sie
    zählte noch einmal, langsam, mit bewegten Lippen, während der Schiffer das Tau festmachte und sie nicht ansah.""",
    "fr": """Le port était tranquille quand le dernier bateau rentra. Personne sur la jetée ne l'attendait avant le
    matin, et les lampes le long du mur étaient déjà éteintes. Une vieille femme se tenait sous l'arche de la douane,
    un panier entre les mains, et comptait les hommes qui montaient à l'échelle. Il aurait dû y en avoir sept. Elle
    compta encore, lentement, en remuant les lèvres, pendant que le patron nouait la corde sans la regarder.""",
    "es": """El puerto estaba tranquilo cuando entró el último barco. Nadie en el muelle lo esperaba antes de la
    mañana, y las lámparas de la muralla ya estaban apagadas. Una anciana permanecía bajo el arco de la aduana con una
    cesta entre las manos y contaba a los hombres que subían por la escalera. Tenían que ser siete. Volvió a contar,
    despacio, moviendo los labios, mientras el patrón ataba la cuerda y no quería mirarla.""",
    "ru": """В гавани было тихо, когда вошла последняя лодка. Никто на пристани не ждал её раньше утра, и фонари вдоль
    стены уже погасли. Старая женщина стояла под аркой таможни, держала обеими руками корзину и считала мужчин, которые
    поднимались по лестнице. Их должно было быть семеро. Она пересчитала снова, медленно, шевеля губами, пока хозяин
    лодки привязывал канат и старался не смотреть на неё.""",
    "zh": """最后一条船进港的时候，港口十分安静。码头上没有人想到它会在天亮以前回来，
    墙边的灯已经熄灭了。一位老妇人站在海关大楼的拱门下面，双手提着篮子，数着从梯子上爬上来的男人。
    应该有七个人。她又慢慢地数了一遍，嘴唇轻轻地动着，而船长正在系绳子，不愿意看她。风从海上吹来，带着冰冷的雨水。她终于明白发生了什么事情，但是她没有哭，只是把篮子放在石头上，转身走回自己的家里。""",
}
BIBLIOGRAPHY = """[1] Okafor, T., Lindqvist, M. and Haraldsson, B. (2019). Sparse retrieval in long documents. Journal
of Information Studies 12(3), pp. 201-219. [2] Nguyen, P. H. and Szymański, K. (2021). Layout analysis without labels.
Proceedings of the 14th Workshop on Document Engineering, Springer, Heidelberg, 33-48. [3] Bianchi, L., Kowalczyk, A.
Müller, J. P. and van der Berg, S. (2017). Reading order revisited. Pattern Recognition Letters 88, 14-22. [4] Tanaka,
H. and Yamamoto, K. (2020). Recognition of vertical writing. Transactions on Graphics 39, 5-17. [5] Rossi, G. (2015).
Fonts and their encodings. Cambridge University Press."""
NUMBERS = " ".join(f"{n * 7919 % 10007 / 100:.2f} ± {n % 13 / 10} kg" for n in range(200))


def wrong_alphabet(text: str, how: str) -> str:
    letters = sorted({ch for ch in text.lower() if ch.isalpha()})
    other = letters[1:] + letters[:1]
    if how == "shuffled":
        random.Random(5).shuffle(other)
    table = dict(zip(letters, other, strict=True))
    table |= {a.upper(): b.upper() for a, b in table.items() if len(a.upper()) == 1}
    return "".join(table.get(ch, ch) for ch in text)


def noisy(text: str, share: float) -> str:
    draw = random.Random(7)
    letters = sorted({ch for ch in text.lower() if ch.isalpha()})
    return "".join(draw.choice(letters) if ch.isalpha() and draw.random() < share else ch for ch in text)


@pytest.mark.parametrize("language", PROSE)
def test_prose_is_known_by_its_language(language: str):
    text = PROSE[language]
    assert detect_language(text) == language
    rate = vocabulary_rate(text, language)
    assert rate is not None and rate > (0.45 if language == "zh" else 0.8)
    assert not is_gibberish(text) and not is_gibberish(text, "en")


def test_text_without_sentences_is_no_gibberish():
    code = Path(__file__).read_text(encoding="utf-8").split("@pytest")[1:]
    latin = "Omnia praeclara rara sunt, nec quicquam difficilius quam reperire quod sit omni ex parte perfectum. " * 5
    bases = "GATTACAGCC TTGACCGTAA " * 60
    for text in ("\n".join(code), BIBLIOGRAPHY, NUMBERS, latin, bases, "", "Fig. 3"):
        assert not is_gibberish(text), text[:60]


@pytest.mark.parametrize("language", ["en", "de", "ru"])
def test_letters_of_a_wrong_alphabet_are_found(language: str):
    text = PROSE[language]
    for garbled in (wrong_alphabet(text, "shifted"), wrong_alphabet(text, "shuffled"), noisy(text, 0.3)):
        assert is_gibberish(garbled), garbled[:60]
        assert vocabulary_rate(garbled, language) < 0.35


def test_characters_of_a_wrong_table_are_found():
    assert is_gibberish(wrong_alphabet(PROSE["zh"], "shuffled"))


def test_mojibake_that_is_repaired_later_is_no_gibberish():
    assert not is_gibberish(PROSE["ru"].encode().decode("latin-1"))


def test_too_little_text_has_no_rate():
    assert vocabulary_rate("Sgd rgnqs", "en") is None and vocabulary_rate(PROSE["en"], "la") is None
    assert detect_language("3.14") == "" and alternation("") == 1.0
    assert alternation(PROSE["de"]) > 0.6 > alternation(wrong_alphabet(PROSE["de"], "shifted"))
