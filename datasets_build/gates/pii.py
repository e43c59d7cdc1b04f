"""Personal data by its form: patterns find candidates, number plans and check digits decide.

Names and addresses have no form; they need a model of the language, which is not here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from datasets_build.gates.settings import Kind

PII_VERSION = 1  # raised when the same text gives other findings
# The look to the left comes second: the first character finds a candidate many times faster.
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.)+[A-Za-z]{2,24}\b")
_PHONE = re.compile(r"\+(?<![\w+]\+)[\d(][\d ()./\u2010-\u2014-]{5,22}\d(?!\w)")
_NATIONAL = re.compile(r"(?<![\w.,+-])\(?\d[\d ()./\u2010-\u2014-]{5,20}\d(?!\w|[.,]\d)")
_IPV4 = re.compile(r"\d(?<![\w.:/-]\d)\d{0,2}(?:\.\d{1,3}){3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"[0-9A-Fa-f:](?<![\w:.].)[0-9A-Fa-f]{0,3}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_GLOBAL = ipaddress.ip_network("2000::/3")
_COLONS = re.compile(r"::|:[0-9A-Fa-f]{1,4}:")
_IBAN = re.compile(r"[A-Z](?<!\w[A-Z])[A-Z]\d{2}(?: ?[A-Z0-9]){11,30}(?!\w)")
_CARD = re.compile(r"[3-6](?<![\w.,-]\d)\d{3}(?:[ -]?\d){9,15}(?![\w-]|[.,]\d)")
# First digits and lengths of the large networks: of long numbers that pass the check digit, a tenth do by chance.
_CARD_FORMS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}|3[47]\d{13}|"
    r"3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d{2})\d{12}|35(?:2[89]|[3-8]\d)\d{12}"
)
PLACEHOLDER: dict[Kind, str] = {
    "email": "[email]",
    "phone": "[phone]",
    "ip": "[ip]",
    "iban": "[iban]",
    "card": "[card]",
}


@dataclass(frozen=True)
class Found:
    """``text[start:end]`` is personal data."""

    kind: Kind
    start: int
    end: int


def find(text: str, kinds: tuple[Kind, ...], region: str = "") -> list[Found]:
    """Personal data in ``text``, in order, none overlapping (the first kind of ``kinds`` wins)."""
    found: list[Found] = []
    for kind in ("iban", "card", "email", "ip", "phone"):  # an IBAN holds digits that look like a card or a phone
        if kind in kinds:
            for start, end in _FINDERS[kind](text, region):
                if not any(start < f.end and f.start < end for f in found):
                    found.append(Found(kind, start, end))
    return sorted(found, key=lambda f: f.start)


def mask(text: str, kinds: tuple[Kind, ...], region: str = "") -> str:
    """``text`` with what ``find`` finds replaced by ``[email]`` and so on."""
    parts, at = [], 0
    for f in find(text, kinds, region):
        parts += [text[at : f.start], PLACEHOLDER[f.kind]]
        at = f.end
    return "".join([*parts, text[at:]])


def _emails(text: str, region: str) -> Iterator[tuple[int, int]]:
    if "@" in text:
        yield from (m.span() for m in _EMAIL.finditer(text))


def _phones(text: str, region: str) -> Iterator[tuple[int, int]]:
    import phonenumbers

    spans: list[tuple[int, int]] = []
    for pattern, country in ((_PHONE, None), (_NATIONAL, region)):
        for match in pattern.finditer(text) if country is None or country else ():
            for number in phonenumbers.PhoneNumberMatcher(match.group(), country):
                start, end = match.start() + number.start, match.start() + number.end
                if not any(start < b and a < end for a, b in spans):
                    spans.append((start, end))
    yield from spans


def _addresses(text: str, region: str) -> Iterator[tuple[int, int]]:
    for pattern in (_IPV4, _IPV6) if _COLONS.search(text) else (_IPV4,):
        for match in pattern.finditer(text):
            try:
                address = ipaddress.ip_address(match.group())
            except ValueError:
                continue
            # 3.1.2.4 is the number of a section or a version.
            numbered = address.version == 4 and all(len(part) == 1 for part in match.group().split("."))
            scope = address.version == 6 and address not in _GLOBAL  # C::D is a name in a program
            if address.is_global and not numbered and not scope:
                yield match.span()


def _ibans(text: str, region: str) -> Iterator[tuple[int, int]]:
    from stdnum import iban

    for match in _IBAN.finditer(text):
        # What follows in capitals may have been taken along: the longest beginning that is one.
        words = match.group().split(" ")
        for n in range(len(words), 0, -1):
            candidate = " ".join(words[:n])
            if iban.is_valid(candidate):
                yield match.start(), match.start() + len(candidate)
                break


def _cards(text: str, region: str) -> Iterator[tuple[int, int]]:
    from stdnum import luhn

    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        if _CARD_FORMS.fullmatch(digits) and luhn.is_valid(digits) and len(set(digits)) > 1:
            yield match.span()


_FINDERS: dict[Kind, Callable[[str, str], Iterator[tuple[int, int]]]] = {
    "email": _emails,
    "phone": _phones,
    "ip": _addresses,
    "iban": _ibans,
    "card": _cards,
}
