"""Answers that are chosen: letters of options, true or false.

L-Eval (An et al. 2023, arXiv 2307.11088, section 4 and appendix B) asks for exactly the right letters; of questions
with several right options, an answer that has only some of them, and no wrong one, gets a quarter of the point (B.4).
How letters are found in what a model writes is not described there; ``letters`` says how it is done here.
"""

from __future__ import annotations

import re

_RUN = re.compile(r"(?<![\w'’])([A-H]{1,8})(?![\w'’])")
_NEXT = re.compile(r"[\s,;/&()*]*(?:(?:and|or)\b[\s(*]*)?")
_SAID = re.compile(r"\b(?:answers?|options?|choices?)\b[^\w\n]*(?:(?:is|are)\b[^\w\n]*)?", re.IGNORECASE)
_MARGIN = re.compile(r"[\s(*-]*")
_TRUTH = re.compile(r"\b(true|false)\b", re.IGNORECASE)


def letters(output: str) -> frozenset[str]:
    """The letters (A to H) that an answer chooses.

    They are the first that stand alone, or the first after "the answer is" or the like; those that follow directly
    ("A, C and D", "ACD"); and those that begin the lines right below ("A. ...", "C. ..."). The article A is none.
    """
    chosen: set[str] = set()
    for line in output.splitlines():
        runs = [run for run in _RUN.finditer(line) if _chooses(run, line)]
        if not chosen and runs:
            said = {label.end() for label in _SAID.finditer(line)}
            at = next((i for i, run in enumerate(runs) if run.start() in said), 0)
        elif chosen and runs and _MARGIN.fullmatch(line, 0, runs[0].start()):
            at = 0
        elif chosen:
            break
        else:
            continue
        end = runs[at].start()
        for run in runs[at:]:
            if not _NEXT.fullmatch(line, end, run.start()):
                break
            chosen |= set(run[1])
            end = run.end()
    return frozenset(chosen)


def _chooses(run: re.Match[str], line: str) -> bool:
    """Whether capitals are letters of options: "BAD" is a word, and so is the A of "A boat"."""
    if list(run[1]) != sorted(set(run[1])):
        return False
    return run[1] != "A" or not re.match(r" (?!(?:and|or|is|because|since)\b)[a-z]", line[run.end() :])


def letters_score(output: str, expected: str) -> float:
    """1 for exactly the letters of ``expected``, 1/4 for some of them and no other, else 0."""
    chosen, right = letters(output), letters(expected)
    if chosen == right:
        return float(bool(right))
    return 0.25 if chosen and chosen < right else 0.0


def truth_is(output: str, expected: str) -> float:
    """1 where the first "true" or "false" of ``output`` is that of ``expected``."""
    found, wanted = _TRUTH.search(output), _TRUTH.search(expected)
    return float(bool(found and wanted and found[1].casefold() == wanted[1].casefold()))
