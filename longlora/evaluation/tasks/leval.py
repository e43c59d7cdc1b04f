"""L-Eval (An et al. 2023, arXiv 2307.11088) from its data files: questions about long documents.

Each line of ``<subset>.jsonl`` is a document (``input``) with ``instructions`` and ``outputs``. As the paper has it,
answers to closed questions must match exactly; open ones are asked with the length of the true answer, so that length
does not decide (section 4), and measured by F1 (questions) or ROUGE-L (summaries). Its judging by other models is left
out. Prompts have its structure - document, instruction, how to answer - in our own words, and no system message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longlora.evaluation.scoring.choices import letters_score, truth_is
from longlora.evaluation.scoring.numbers import last_number_is
from longlora.evaluation.scoring.rouge import rouge_l
from longlora.evaluation.scoring.words import contains, f1, first_line
from longlora.evaluation.tasks.base import Context, Result, Sample, Task
from longlora.evaluation.tasks.records import Question, Record, asked, records, truncation

OPENING = "Read this document. What you have to do with it is said below it.\n\n"


@dataclass(frozen=True)
class Rule:
    """How a subset is asked and measured. ``tokens``: what an answer of its form needs, at most the authors' 512."""

    measure: str
    ask: str
    tokens: int


_ONE_LETTER = Rule("option_letters", "Answer with the letter of the right option and nothing else.", 32)
_LETTERS = Rule(
    "option_letters", "Several options can be right. Answer with the letters of all that are, and nothing else.", 32
)
_TRUTH = Rule("true_false", "Answer with True or False.", 16)
_NUMBER = Rule("last_number", "Think step by step as in the examples, and give the number last.", 512)
_TOPIC = Rule("topic", "Answer with the name of the topic and nothing else.", 32)
_PROGRAM = Rule("program_output", "Think step by step, and give the output alone on the last line.", 512)
_QUESTION = Rule("f1", "Answer with about {words}.", 128)
_SUMMARY = Rule("rouge_l", "Answer with about {words}.", 512)

SUBSETS: dict[str, Rule] = {
    "coursera": _LETTERS,
    "quality": _ONE_LETTER,
    "tpo": _ONE_LETTER,
    "sci_fi": _TRUTH,
    "gsm100": _NUMBER,
    "topic_retrieval_longchat": _TOPIC,
    "codeU": _PROGRAM,
    **dict.fromkeys(
        ("financial_qa", "legal_contract_qa", "multidoc_qa", "narrative_qa", "natural_question", "scientific_qa"),
        _QUESTION,
    ),
    **dict.fromkeys(
        (
            "gov_report_summ",
            "meeting_summ",
            "news_summ",
            "paper_assistant",
            "patent_summ",
            "review_summ",
            "tv_show_summ",
        ),
        _SUMMARY,
    ),
}
# Files of another name, by what their records say of their evaluation.
_BY_EVALUATION = {"exam": _ONE_LETTER, "f1": _QUESTION, "human": _QUESTION, "llm": _QUESTION, "rouge": _SUMMARY}

# Science fiction is asked twice: by the document's world and by ours (appendix B.5); its outputs hold both answers.
_FACT = re.compile(r"\[?\s*\bfact\s*:\s*(true|false)\b\W*", re.IGNORECASE)
_WORLD = re.compile(r"[^.?!\n]*\bbased on the world described in the document\b[.!]?", re.IGNORECASE)
_IN_STORY = "Judge by the world of the document."
_IN_FACT = "Judge by the real world and what is known of it, not by the document."


def _last_number(output: str, expected: str) -> float:
    """What a model writes from a question of its own on, as it saw in the examples, is no answer."""
    return last_number_is(re.split(r"\n\s*Question\b", output)[0], expected)


def _topic(output: str, expected: str) -> float:
    return contains(first_line(output), expected)


def _program_output(output: str, expected: str) -> float:
    """Without spaces, the last line must end with it."""
    wanted = "".join(expected.split())
    last = "".join(first_line("\n".join(reversed(output.splitlines()))).split()).rstrip(".`'\"*")
    return float(bool(re.search(rf"(?<![\w.-]){re.escape(wanted)}$", last)) and bool(wanted))


_MEASURES: dict[str, Callable[[str, str], float]] = {
    "option_letters": letters_score,
    "true_false": truth_is,
    "last_number": _last_number,
    "topic": _topic,
    "program_output": _program_output,
    "f1": f1,
    "rouge_l": rouge_l,
}


class LEval(Task):
    """Mean score of answers to L-Eval's questions, each by the measure of its subset."""

    name = "leval"
    version = 1
    metric = "score"
    better = "higher"
    groups = (("subset",),)

    def samples(self, context: Context) -> list[Sample]:
        settings = context.settings.leval
        most = settings.max_new_tokens
        return asked(context, (q for record in records(settings, self.name) for q in _questions(record, most)))

    def judge(self, sample: Sample, output: str) -> Result:
        measure = sample.about["measure"]
        score = _MEASURES[measure](output, sample.expected)
        if measure in ("f1", "rouge_l"):
            return {"score": score, "verdict": "scored"}
        return {"score": score, "verdict": "correct" if score == 1 else "wrong"}

    def details(self, samples: Sequence[Sample], results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
        return truncation(samples)


def _questions(record: Record, max_new_tokens: int | None) -> Iterator[Question]:
    subset = record.file.stem
    rule = SUBSETS.get(subset) or _BY_EVALUATION.get(str(record.fields.get("evaluation")).lower())
    if rule is None:
        raise record.wrong(f"{subset} is no subset of L-Eval, and evaluation is none of {', '.join(_BY_EVALUATION)}")
    text, instructions, outputs = record.text("input"), record.texts("instructions"), record.texts("outputs")
    if len(instructions) != len(outputs):
        raise record.wrong(f"{len(instructions)} instructions and {len(outputs)} outputs")
    document = f"{subset}/{record.index}"
    about = {"subset": subset, "document": document, "measure": rule.measure}
    for i, (instruction, output) in enumerate(zip(instructions, outputs, strict=True)):
        for suffix, question, expected in _forms(rule, instruction.strip(), output.strip()):
            after = f"\n\n{question}\n{rule.ask.format(words=_words(expected))}"
            name = f"{document}/{i}{suffix}"
            tokens = max_new_tokens or rule.tokens
            yield Question(name, (OPENING, text, after), expected, tokens, about, document)


def _forms(rule: Rule, instruction: str, output: str) -> list[tuple[str, str, str]]:
    """What is added to the sample's name, the question, and its answer."""
    fact = _FACT.search(output) if rule is _TRUTH else None
    if fact is None:
        return [("", instruction, output)]
    bare = _WORLD.sub("", instruction).strip()
    story = f"{output[: fact.start()]}{output[fact.end() :]}".strip()
    return [("", f"{bare} {_IN_STORY}", story), ("-fact", f"{bare} {_IN_FACT}", fact[1])]


def _words(answer: str) -> str:
    n = len(answer.split())
    return "one word" if n == 1 else f"{n} words"
