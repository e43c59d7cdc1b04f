"""LongBench v1 and LongBench-E (Bai et al. 2023, arXiv 2308.14508) from their data files.

One record is a question (``input``) about a ``context`` with ``answers``, of one of 21 datasets in English, Chinese or
code. Measures are those of the paper's table 1, answer lengths those published with the data. Too long contexts lose
their middle (section 4.1). Prompts have the published structure, in our own words; few-shot and code datasets are
continued as plain text, without the chat format, as published; of the former only the first line of an answer counts.
Chinese is compared sign by sign instead of by words from a dictionary: values of the three Chinese datasets measured by
F1 or ROUGE-L are not the published ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longlora.evaluation.scoring.longbench import best, classification, edit_similarity, share_of_numbers
from longlora.evaluation.scoring.rouge import rouge_l
from longlora.evaluation.scoring.words import f1, first_line
from longlora.evaluation.tasks.base import Context, Result, Sample, Task
from longlora.evaluation.tasks.records import Question, Record, asked, records, truncation


@dataclass(frozen=True)
class Dataset:
    """How a dataset is asked and measured. ``tokens``: the published length of answers.

    ``plain``: continued as plain text; ``line``: only the first line of an answer counts. ``{input}`` in ``after`` is
    the record's question.
    """

    measure: str
    tokens: int
    before: str
    after: str
    plain: bool = False
    line: bool = False


_BRIEF = "Answer with the fewest words that do, and explain nothing."
_BRIEF_ZH = "请用尽可能少的字回答，不要解释。"
_TEXT = (f"Read the text and answer the question below it. {_BRIEF}\n\n", f"\n\nQuestion: {{input}}\n{_BRIEF}")
_PASSAGES = (
    f"Read these passages and answer the question below them. {_BRIEF}\n\n",
    f"\n\nQuestion about the passages: {{input}}\n{_BRIEF}",
)
_PAPER_RULE = (
    'If the article does not say, answer "unanswerable"; to a question of yes or no, answer "yes", "no" or '
    f'"unanswerable". {_BRIEF}'
)
_CODE = ("Continue this code.\n", "{input}\nThe next line:")

DATASETS: dict[str, Dataset] = {
    # one document
    "narrativeqa": Dataset(
        "f1", 128, f"Read the story, a book or a film script, and answer the question below it. {_BRIEF}\n\n", _TEXT[1]
    ),
    "qasper": Dataset(
        "f1", 128, f"Read the scientific article and answer the question below it. {_PAPER_RULE}\n\n",
        f"\n\nQuestion about the article: {{input}}\n{_PAPER_RULE}",
    ),
    "multifieldqa_en": Dataset("f1", 64, *_TEXT),
    "multifieldqa_zh": Dataset(
        "f1", 64, f"请先读下文，再回答文后的问题。{_BRIEF_ZH}\n\n", f"\n\n问题：{{input}}\n{_BRIEF_ZH}"
    ),
    # several documents
    "hotpotqa": Dataset("f1", 32, *_PASSAGES),
    "2wikimqa": Dataset("f1", 32, *_PASSAGES),
    "musique": Dataset("f1", 32, *_PASSAGES),
    "dureader": Dataset(
        "rouge_l", 128, "请先读下面的几篇文章，再回答文后的问题。\n\n",
        "\n\n请根据以上文章回答问题。\n问题：{input}",
    ),
    # summaries
    "gov_report": Dataset(
        "rouge_l", 512, "Here is a report of a government body. Summarize it on one page.\n\n",
        "\n\nNow summarize the report on one page.",
    ),
    "qmsum": Dataset(
        "rouge_l", 512, "Here is the transcript of a meeting, and below it a request. Answer it in some sentences.\n\n",
        "\n\nRequest: {input}\nAnswer it from the transcript in some sentences.",
    ),
    "multi_news": Dataset(
        "rouge_l", 512, "Here are some news articles about one event. Summarize them on one page.\n\n",
        "\n\nNow summarize all of these articles on one page.",
    ),
    "vcsum": Dataset("rouge_l", 512, "下面是一次会议的记录，请为它写一篇总结。\n\n", "\n\n请写出这次会议的总结。"),
    # examples
    "trec": Dataset(
        "classification", 64, "Say of what type the last question is. The first ones are examples.\n\n", "\n{input}",
        plain=True, line=True,
    ),
    "triviaqa": Dataset(
        "f1", 32,
        "Answer the last question from its passage with no more than the answer. The first ones are examples.\n\n",
        "\n\n{input}", plain=True, line=True,
    ),
    "samsum": Dataset(
        "rouge_l", 128, "Summarize the last conversation in a few short sentences. The first ones are examples.\n\n",
        "\n\n{input}", plain=True, line=True,
    ),
    "lsht": Dataset(
        "classification", 64, "请判断最后一条新闻的类别。前面几条是例子。\n\n", "\n{input}", plain=True, line=True
    ),
    # made for the purpose
    "passage_count": Dataset(
        "number_share", 32, "Some of these passages can be repeated. Count how many different ones there are.\n\n",
        "\n\nHow many different passages are there? Answer with the number alone.",
    ),
    "passage_retrieval_en": Dataset(
        "number_share", 32, "Here are numbered paragraphs of an encyclopedia, and then an abstract of one of them.\n\n",
        "\n\nAbstract: {input}\n\nWhich paragraph does the abstract sum up? Answer like this: Paragraph 1",
    ),
    "passage_retrieval_zh": Dataset(
        "number_share", 32, "下面是若干编了号的段落，最后是其中一段的摘要。\n\n",
        "\n\n摘要：{input}\n\n这是哪一段的摘要？请这样回答：段落1",
    ),
    # code
    "lcc": Dataset("edit_similarity", 64, *_CODE, plain=True),
    "repobench-p": Dataset("edit_similarity", 64, *_CODE, plain=True),
}  # fmt: skip


class LongBench(Task):
    """Mean score of answers to LongBench's questions, each by the measure of its dataset."""

    name = "longbench"
    version = 1
    metric = "score"
    better = "higher"
    groups = (("subset",), ("length_range",))

    def samples(self, context: Context) -> list[Sample]:
        settings = context.settings.longbench
        return asked(context, (_question(record, settings.max_new_tokens) for record in records(settings, self.name)))

    def judge(self, sample: Sample, output: str) -> Result:
        score = _score(DATASETS[sample.about["dataset"]], output, sample.expected)
        if sample.about["measure"] in ("classification", "number_share"):
            return {"score": score, "verdict": "correct" if score == 1 else "wrong"}
        return {"score": score, "verdict": "scored"}

    def details(self, samples: Sequence[Sample], results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
        return truncation(samples)


def _score(dataset: Dataset, output: str, expected: dict[str, list[str]]) -> float:
    answers = expected["answers"]
    if dataset.line:
        output = first_line(output)
    if dataset.measure == "classification":
        return best(lambda said, answer: classification(said, answer, expected["classes"]), output, answers)
    measures = {"f1": f1, "rouge_l": rouge_l, "number_share": share_of_numbers, "edit_similarity": edit_similarity}
    return best(measures[dataset.measure], output, answers)


def _question(record: Record, max_new_tokens: int | None) -> Question:
    """A record's question. Its subset is the file's name: ``hotpotqa``, or ``hotpotqa_e`` of LongBench-E."""
    subset = record.file.stem
    name = str(record.fields.get("dataset") or subset).removesuffix("_e")
    if name not in DATASETS:
        raise record.wrong(f"dataset is {name}, which is none of LongBench's: {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    length = record.fields.get("length")
    if not isinstance(length, int):
        raise record.wrong("length (in words) is missing")
    expected = {"answers": record.texts("answers")}
    if dataset.measure == "classification":
        expected["classes"] = record.texts("all_classes")
    id = f"{subset}/{record.fields.get('_id') or record.index}"
    about = {
        "subset": subset, "dataset": name, "measure": dataset.measure, "document": id, "words": length,
        "length_range": length_range(length),
    }  # fmt: skip
    parts = (dataset.before, record.text("context"), dataset.after.replace("{input}", record.text("input")))
    return Question(id, parts, expected, max_new_tokens or dataset.tokens, about, id, dataset.plain)


def length_range(words: int) -> str:
    """The range of LongBench-E that a length is in."""
    return "0-4k" if words < 4000 else "4-8k" if words < 8000 else "8k+"
