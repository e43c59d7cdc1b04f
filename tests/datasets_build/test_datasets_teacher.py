"""Rows of a teacher, against a real HTTP server."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter

import pytest
from handmade import make_document, paper
from teacher_server import KEY, Answer, TeacherServer, step_of, teacher

from datasets_build.teacher import limits
from datasets_build.teacher.calls import Call
from datasets_build.teacher.responses import Responses
from datasets_build.teacher.settings import TeacherSettings
from pdf2txt.errors import UserError

SETTINGS = {"model": "scripted", "api_key_env": "TEACHER_TEST_KEY", "backoff_seconds": 0.01, "timeout_seconds": 20.0}
TOPICS = ("bookbinding", "joinery", "basketry", "glazing")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_TEST_KEY", KEY)


@pytest.fixture
def asked(build):
    """``asked(server, recipes=[...], teacher={...}, ...)``: a build of four papers with a teacher."""

    def call(server: TeacherServer, documents=None, **settings):
        more = settings.pop("teacher", {})
        chosen = [paper(t) for t in TOPICS] if documents is None else documents
        # Papers of one mould make a scripted teacher say nearly the same of each.
        gates = {"levels": {"near-duplicates": "off"}}
        defaults = {"recipes": ["title", "paper-qa"], "per_document": 2, "gates": gates}
        return build(chosen, teacher={"base_url": server.url, **SETTINGS, **more}, **{**defaults, **settings})

    return call


def of_teacher(built) -> list[dict]:
    return [row for row in built.rows() if row["answer_source"] == "teacher:scripted"]


def test_rows_stand_on_evidence_in_their_windows(asked) -> None:
    with TeacherServer() as server:
        built = asked(server, recipes=["paper-qa", "comparison", "review", "summary", "book-qa"], license="cc0-1.0",
                      teacher={"license": "cc-by-4.0", "price_input": 1.0, "price_output": 2.0})  # fmt: skip
    rows = of_teacher(built)
    tasks = Counter(row["task"] for row in rows)
    assert tasks["paper-qa"] >= 4 and tasks["comparison"] >= 2 and tasks["review"] == tasks["summary"] == 4
    assert Counter(r["reason"] for r in built.rejects())["not-a-book"] == 8
    for row in rows:
        assert row["license"] == "cc0-1.0 AND cc-by-4.0"
        assert "\nlicense: cc0-1.0 AND cc-by-4.0\n" in (built.output / "README.md").read_text()
        assert row["n_tokens"] <= 1024
        quoted = row["output"].removeprefix("It says this: ")
        assert quoted.split(". ")[0] in " ".join(row["instruction"].split())
        assert row["evidence"] and {e["doc_id"] for e in row["evidence"]} == set(row["doc_ids"])
        assert all(e["box"] and e["page"] >= 1 for e in row["evidence"])
    stats = json.loads((built.output / "stats.json").read_text())["teacher"]
    assert stats["calls"] == len(server.answered()) == len(set(server.sent()))
    spent = sum(len(b["messages"][0]["content"]) // 4 for b in server.bodies)
    assert stats["prompt_tokens"] == spent
    assert stats["cost"] == pytest.approx((stats["prompt_tokens"] + 2 * stats["completion_tokens"]) / 1e6)
    assert "## Teacher" in (built.output / "README.md").read_text()
    assert KEY not in "".join(p.read_text(errors="replace") for p in built.output.rglob("*") if p.is_file())


def test_documents_that_are_compared_are_in_one_split(asked) -> None:
    with TeacherServer() as server:
        papers = [paper(t) for t in (*TOPICS, "thatching", "weaving")]
        built = asked(server, papers, recipes=["quote", "comparison"], validation_share=0.4)
    splits = json.loads((built.output / "splits.json").read_text())
    pairs = {tuple(row["doc_ids"]) for row in of_teacher(built)}
    # As many as each side allows: none is lost but one document of an odd number.
    assert Counter(splits.values()) == {"train": 4, "validation": 2} and len(pairs) == 3
    assert all(splits[a] == splits[b] for a, b in pairs)


def test_rows_of_a_teacher_pass_the_gates(asked) -> None:
    with TeacherServer() as server:
        settings = {"recipes": ["title", "review"], "work": "a"}
        kept = asked(server, **settings)
        judged = asked(server, **{**settings, "work": "b"}, gates={"similarity": 0.6})
        assert len(server.log) == len(set(server.sent()))  # the gates ask nothing again
    near = [r for r in judged.rejects() if r["reason"] == "near-duplicate" and r["task"] == "review"]
    assert near and len(of_teacher(judged)) + len(near) == len(of_teacher(kept))
    looked = [f["reused"] for e, f in judged.events if e == "unit" and f["kind"] == "gates"]
    assert looked and all(looked)  # similarity is decided by what was seen


def test_nothing_is_asked_again_and_order_does_not_depend_on_arrival(asked) -> None:
    with TeacherServer() as server:
        first = asked(server, work="a", teacher={"concurrency": 1})
        calls = len(server.log)
        again = asked(server, work="b")
        assert len(server.log) == calls and all(again.reused())
        assert again.metrics["row_digest"] == first.metrics["row_digest"]
    for unit in (first.output.parent.parent / "units").glob("*/*"):
        unit.unlink()
    # Another server at another address, replies in another order: the same rows.
    uneven = lambda n, prompt: Answer(teacher(prompt), delay=0.15 * (n % 3))  # noqa: E731
    with TeacherServer(uneven) as server:
        other = asked(server, work="c", teacher={"concurrency": 6})
        assert server.most_in_flight > 3
    assert other.metrics["row_digest"] == first.metrics["row_digest"]
    with TeacherServer() as server:  # one more document: only it is asked about
        asked(server, [paper(t) for t in (*TOPICS, "thatching")], work="d")
        assert 0 < len(server.log) <= calls / 4 + 1


def test_429_and_500_are_backed_off_and_retried(asked) -> None:
    def behave(n: int, prompt: str) -> Answer:
        if n == 0:
            return Answer(status=429, headers={"retry-after": "1"}, text="slow down")
        return Answer(status=500, text="oh") if n in (2, 5) else Answer(teacher(prompt))

    with TeacherServer(behave) as server:
        built = asked(server, teacher={"concurrency": 1})
    assert server.times[1] - server.times[0] >= 1.0
    assert built.metrics["teacher_failed_attempts"] == {"rate-limited": 1, "server-error": 2}
    assert len(of_teacher(built)) == 8
    assert not any(event == "transient" for event, _ in built.events)


def test_a_bad_server_costs_rows_but_not_the_build(asked) -> None:
    """Three prompts never get anything but a 500, a hang, and a page that is no completion."""
    victims: dict[str, str] = {}

    def behave(n: int, prompt: str) -> Answer:
        if step_of(prompt) == "check" and prompt not in victims and len(victims) < 3:
            victims[prompt] = ("500", "hang", "page")[len(victims)]
        fate = victims.get(prompt)
        if fate == "500":
            return Answer(status=500, text="always")
        if fate == "hang":
            return Answer(teacher(prompt), delay=6.0)
        return Answer(raw=b"<html>") if fate == "page" else Answer(teacher(prompt))

    with TeacherServer(behave) as server:
        built = asked(server, work="a", teacher={"retries": 1, "timeout_seconds": 2.5})
        reasons = Counter(r["reason"] for r in built.rejects())
        assert reasons["server-error"] == reasons["timeout"] == reasons["no-completion"] == 1
        assert len(of_teacher(built)) == 5
        assert sum(event == "transient" for event, _ in built.events) == 3
        assert built.metrics["teacher_store_lost_calls"] == 4  # hang and page, twice each: perhaps paid
        # The next build asks for these three alone.
        calls = len(server.log)
        victims.update(dict.fromkeys(victims, "well"))
        healed = asked(server, work="b")
        assert len(server.log) == calls + 3
        assert len(of_teacher(healed)) == 8


def test_junk_is_asked_again_then_rejected(asked) -> None:
    def behave(n: int, prompt: str) -> Answer:
        if "joinery" in prompt and step_of(prompt) == "question":
            return Answer("Sure! Here is a question for you.", usage=False)
        fenced = f"<think>{{}}</think>Here you are:\n```json\n{teacher(prompt)}\n```"
        return Answer(fenced if "Your last reply" in prompt else "no JSON", usage=False)

    with TeacherServer(behave) as server:
        built = asked(server)
        junk = [r for r in built.rejects() if r["reason"] == "junk-reply"]
        assert len(junk) == 2 and "question" in junk[0]["detail"]
        assert len(of_teacher(built)) == 6
        assert built.metrics["teacher_calls_without_usage"] == built.metrics["teacher_calls"]
        calls = len(server.log)
        assert all(asked(server, work="b").reused()) and len(server.log) == calls  # a verdict, not a mishap


FAILS = {
    "bookbinding": (
        "answer",
        {"answer": "Yes.", "evidence": ["These words stand nowhere in it."]},
        "evidence-not-found",
    ),
    "joinery": ("answer", {"answer": "Yes.", "evidence": []}, "evidence-missing"),
    "basketry": ("answer", {"answer": None, "evidence": []}, "unanswerable"),
    "glazing": ("check", {"answerable": False, "supported": True, "reason": "no"}, "not-answerable"),
    "thatching": ("check", {"answerable": "yes", "supported": "no", "reason": "no"}, "not-supported"),
    "gilding": ("question", {"question": "What does this passage say about it?"}, "question-about-passage"),
}


def test_what_fails_a_check_is_rejected_with_the_reason(asked) -> None:
    def behave(n: int, prompt: str) -> Answer:
        step, reply, _ = next(fails for topic, fails in FAILS.items() if topic in prompt)
        return Answer(json.dumps(reply) if step_of(prompt) == step else teacher(prompt))

    with TeacherServer(behave) as server:
        built = asked(server, [paper(t) for t in FAILS])
    topics = {paper(t).doc_id: t for t in FAILS}
    reasons = Counter((topics[r["doc_id"]], r["reason"]) for r in built.rejects())
    assert reasons == {(topic, reason): 2 for topic, (_, _, reason) in FAILS.items()}
    assert not of_teacher(built)


def test_questions_that_need_no_text_are_rejected(asked) -> None:
    known = {}

    def behave(n: int, prompt: str) -> Answer:
        text = teacher(prompt)
        if step_of(prompt) == "answer":
            known[prompt.split("\nTask: ")[1].splitlines()[0]] = json.loads(text)["answer"]
        if step_of(prompt) == "closed-book" and "Over two" not in prompt:
            text = json.dumps({"answer": known[prompt.splitlines()[0].removeprefix("Question: ")]})
        return Answer(text)

    with TeacherServer(behave) as server:
        built = asked(server, [paper(t) for t in TOPICS[:2]], teacher={"closed_book": True})
    assert Counter(r["reason"] for r in built.rejects())["answerable-without-text"] == 4


@pytest.mark.parametrize("wrong", ["key", "model", "parameter"])
def test_what_no_call_can_get_past_is_told_at_once(asked, monkeypatch, wrong) -> None:
    monkeypatch.setenv("TEACHER_TEST_KEY", "wrong-key-4711" if wrong == "key" else KEY)
    refuse = lambda n, prompt: Answer(status=400, text="unknown field")  # noqa: E731
    with TeacherServer(refuse) as server, pytest.raises(UserError) as caught:
        asked(server, per_document=6, teacher={"model": "other" if wrong == "model" else "scripted", "concurrency": 2})
    assert len(server.log) <= 8
    assert {"key": "TEACHER_TEST_KEY", "model": "no such model", "parameter": "limit_parameter"}[wrong] in (
        f"{caught.value} {caught.value.remedy}"
    )
    assert "4711" not in f"{caught.value}"


def test_an_endpoint_that_is_down_is_given_up(asked) -> None:
    with TeacherServer() as server:
        pass
    built = asked(server, per_document=6, teacher={"retries": 1, "concurrency": 2})
    assert built.metrics["tasks"] == {"title": 4}  # the rest of the build goes on
    assert built.metrics["teacher_stopped"] == "endpoint-down"
    assert [f["message"] for e, f in built.events if e == "transient" and "endpoint-down" in f["message"]]


def test_the_budget_is_not_exceeded_and_a_larger_one_goes_on(asked) -> None:
    with TeacherServer() as server:
        small = asked(server, work="a", teacher={"budget": "12k tokens", "concurrency": 4})
        assert small.metrics["teacher_stopped"] == "budget"
        assert 0 < small.metrics["teacher_store_tokens_at_most"] <= 12_000
        assert 0 < len(of_teacher(small)) < 8
        assert any(e == "transient" and "--budget" in f["message"] for e, f in small.events)
        calls = len(server.log)
        same = asked(server, work="b", teacher={"budget": "12k tokens", "concurrency": 4})
        assert same.metrics["teacher_store_tokens_at_most"] <= 12_000
        larger = asked(server, work="c", teacher={"budget": 5, "price_input": 1.0, "price_output": 1.0})
        assert larger.metrics["teacher_stopped"] is None
        assert len(server.log) > calls and len(set(server.sent())) == len(server.sent())
    with TeacherServer() as server:
        for unit in (small.output.parent.parent / "units").glob("*/*"):
            unit.unlink()
        assert asked(server, work="d").metrics["row_digest"] == larger.metrics["row_digest"]


def test_two_senders_of_one_prompt_send_it_once(tmp_path) -> None:
    """As two builds do, or a build and the courier of one that was killed."""
    from concurrent.futures import ThreadPoolExecutor

    from datasets_build.teacher.courier import open_client, send

    call = Call("scripted", "What is it?", "{}")
    with TeacherServer(lambda n, prompt: Answer("It.", delay=0.5)) as server, ThreadPoolExecutor(3) as pool:
        client = open_client(server.url, KEY)
        futures = [pool.submit(send, client, Responses(tmp_path), call, 100, 10.0) for _ in range(3)]
        outcomes = [future.result() for future in futures]
    assert sorted(outcome["reused"] for outcome in outcomes) == [False, True, True]
    assert {outcome["reply"]["text"] for outcome in outcomes} == {"It."}
    assert len(server.log) == 1 and not list((tmp_path / "calls").iterdir())


def test_rate_limit(monkeypatch) -> None:
    monkeypatch.setattr(limits, "MINUTE", 0.3)
    stop = threading.Event()
    settings = TeacherSettings(base_url="http://x", model="m", requests_per_minute=2, tokens_per_minute=100)
    rate = limits.Rate(settings)
    began = time.monotonic()
    taken = [rate.wait(10, stop) for _ in range(5)]  # two at once, two after 0.3 s, one after 0.6 s
    assert 0.6 <= time.monotonic() - began < 2.0
    taken[-1][0] = 95.0  # it took more tokens than was thought: nothing fits beside it
    rate.wait(10, stop)
    assert time.monotonic() - began >= 0.9
    rate.pause(0.2)
    began = time.monotonic()
    rate.wait(1, stop)
    assert time.monotonic() - began >= 0.2


def test_without_a_teacher_none_of_it_is_needed() -> None:
    import subprocess
    import sys

    code = "import sys, datasets_build.stage; sys.exit('openai' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_small_document_is_rejected_not_asked_about(asked) -> None:
    tiny = make_document([("text", "Too short to be asked about by anybody at all.")], name="tiny.pdf")
    with TeacherServer() as server:
        built = asked(server, [paper("joinery"), paper("glazing"), tiny], validation_share=0)
    assert Counter(r["reason"] for r in built.rejects() if r["doc_id"] == tiny.doc_id)["no-text"] == 2


def test_no_rows_because_nobody_answers_names_the_endpoint(asked) -> None:
    with TeacherServer() as server:
        pass
    with pytest.raises(UserError, match="no rows") as error:
        asked(server, recipes=["paper-qa"], teacher={"retries": 0})
    assert f"see that {server.url} answers and run again" in error.value.remedy
