"""The teacher's path against a local HTTP server with the real small model behind it, killed again and again.

    python benchmarks/datasets_teacher.py [--pdfs PATH]... [--kills 2] [--per-document 2] [--seed 1] [--work DIR]

The server speaks /v1/chat/completions; SmolLM2-135M writes the replies, held to the JSON that a call asks for
(as endpoints with `json_schema` do). What so small a model writes seldom passes the checks: the subject is the
machinery. Shown, as a table and in results/datasets_teacher.json:

- killed: `longfolio run --until datasets_build` is killed with SIGKILL (the process, then its whole process
  group) while calls are in flight, until the kills are spent, then finishes. Requests at the server, distinct
  prompts, prompts sent twice, prompts answered twice; rows against those of an undisturbed run.
- faults: a third of the requests meets a 429, a 500, a hang or a page that is no completion.
- pace: a scripted server of half a second per reply; calls per second by concurrency.

Exit code 1 if a prompt was sent twice, or the rows differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[0] = str(ROOT / "tests")  # in place of this folder, whose pdf2txt.py would hide the package
from teacher_server import KEY, Answer, TeacherServer  # noqa: E402

MODEL = "smollm2-135m-q4"
TEXT_TOKENS = 40  # of a text that the model writes into the JSON
DELAY = 0.5  # seconds per reply of the scripted server
FAULTS = ("429", "500", "hang", "page")


class SmallModel:
    """SmolLM2, held to a JSON schema: the frame is given, the model fills in texts and chooses true or false."""

    def __init__(self, cache: Path) -> None:
        from longlora.models import ModelSettings, load_model, load_tokenizer, prepare

        folder = prepare(ModelSettings(name=MODEL), cache)
        self.tokenizer = load_tokenizer(folder)
        self.model = load_model(folder, dtype="float32")
        self.lock = threading.Lock()
        self.known: dict[str, str] = {}  # greedy: the same prompt has the same reply, so it is computed once

    def reply(self, body: dict[str, Any]) -> str:
        """The JSON object for a request."""
        key = json.dumps(body, sort_keys=True)
        with self.lock:
            if key not in self.known:
                schema = body["response_format"]["json_schema"]["schema"]
                self.known[key] = self._fill(body["messages"][-1]["content"], schema["properties"])
            return self.known[key]

    def _fill(self, prompt: str, properties: dict[str, Any]) -> str:
        from longlora.prompts import prompt_text

        begun = prompt_text(self.tokenizer, "chat", prompt)
        written: dict[str, Any] = {}
        for name, kind in properties.items():
            frame = json.dumps(written, ensure_ascii=False)[:-1] + (", " if written else "") + f'"{name}": '
            if kind["type"] == "boolean":
                written[name] = self._chooses_true(begun + frame)
            elif kind["type"] == "array":
                written[name] = [self._quotation(begun + frame + '["', sentences(prompt))]
            else:
                written[name] = self._text(begun + frame + '"')
        return json.dumps(written, ensure_ascii=False)

    def _ids(self, text: str) -> Any:
        return self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]

    def _text(self, begun: str) -> str:
        import torch

        ids = self._ids(begun)
        with torch.inference_mode():
            out = self.model.generate(  # type: ignore[operator]
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=TEXT_TOKENS, do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id, stop_strings=['"'], tokenizer=self.tokenizer,
            )  # fmt: skip
        return str(self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)).split('"')[0].strip()

    def _quotation(self, begun: str, candidates: list[str]) -> str:
        """One of the sentences, word by word the likeliest: a grammar that only knows the text."""
        import torch

        ids = self._ids(begun)
        end = int(self._ids('"')[0, -1])
        known = [[*self._ids(sentence)[0].tolist(), end] for sentence in candidates]

        def allowed(batch: int, so_far: Any) -> list[int]:
            done = so_far[ids.shape[1] :].tolist()
            follows = {k[len(done)] for k in known if k[: len(done)] == done and len(k) > len(done)}
            return sorted(follows) or [end]

        with torch.inference_mode():
            out = self.model.generate(  # type: ignore[operator]
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=max(map(len, known)), do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id, eos_token_id=end, prefix_allowed_tokens_fn=allowed,
            )  # fmt: skip
        return str(self.tokenizer.decode(out[0, ids.shape[1] : -1])).strip()

    def _chooses_true(self, begun: str) -> bool:
        import torch

        with torch.inference_mode():
            logits = self.model(self._ids(begun)).logits[0, -1]
        true, false = (self._ids(word)[0, 0] for word in ("true", "false"))
        return bool(logits[true] >= logits[false])


def sentences(prompt: str) -> list[str]:
    """The sentences of the material in a prompt."""
    texts = re.findall(r"=== [\w ]+ begins ===\n(.*?)\n=== [\w ]+ ends ===", prompt, re.DOTALL)
    found = re.findall(r"[A-Z][^.!?\n]{30,250}[.!?]", "\n".join(texts))
    return found or ["none"]


class Store:
    """`longfolio run demo --until datasets_build` with a teacher, in a store of its own."""

    def __init__(self, folder: Path, url: str, args: argparse.Namespace, **more: Any) -> None:
        teacher = {
            "base_url": url, "model": MODEL, "api_key_env": "TEACHER_KEY", "reply_format": "json_schema",
            "concurrency": 3, "output_tokens": 256, "junk_retries": 0, "backoff_seconds": 0.2, **more,
        }  # fmt: skip
        changes = {
            "dataset.max_tokens": 1024, "dataset.min_validation_rows": 1,
            "dataset.recipes": ["title", "quote", "paper-qa", "summary"],
            "dataset.per_document": args.per_document, "dataset.teacher": teacher, "dataset.imports": [],
        }  # fmt: skip
        pairs = [part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value)}")]
        pdfs = [part for path in args.pdfs for part in ("--pdfs", str(path))]
        tool = Path(sys.executable).parent / "longfolio"
        self.command = [str(tool), "run", "demo", "--until", "datasets_build", "--no-prefect", "--json",
                        "--store", str(folder), *pdfs, *pairs]  # fmt: skip
        self.log = folder.with_suffix(".log")

    def start(self) -> subprocess.Popen:
        env = {**os.environ, "TEACHER_KEY": KEY, "HF_HUB_OFFLINE": "1"}
        with self.log.open("a") as log:
            return subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log, env=env, start_new_session=True)

    def finish(self) -> dict[str, Any]:
        process = self.start()
        out, _ = process.communicate()
        if process.returncode:
            sys.exit(f"the run failed with exit code {process.returncode}; see {self.log}")
        metrics: dict[str, Any] = json.loads(out)["stages"][1]["metrics"]
        return metrics

    def killed(self, server: TeacherServer, after: int, group: bool) -> dict[str, Any] | None:
        """Start; SIGKILL once ``after`` more requests came and one is in flight. None: it finished before."""
        wanted = len(server.log) + after
        process = self.start()
        while len(server.log) < wanted or not server.in_flight:
            if process.poll() is not None:
                return None
            time.sleep(0.01)
        requests, in_flight = len(server.log), server.in_flight
        os.killpg(process.pid, signal.SIGKILL) if group else process.send_signal(signal.SIGKILL)
        process.wait()
        return {"after_requests": requests, "in_flight": in_flight, "process_group": group}


def killed(model: SmallModel, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    draw = random.Random(args.seed)
    with serving(model) as server:
        store, kills = Store(work / "killed", server.url, args), []
        for k in range(args.kills):
            kills.append(store.killed(server, draw.randint(3, 8), group=k % 2 == 1))
            print("killed", kills[-1], flush=True)
        metrics = store.finish()
        sent, answered = Counter(server.sent()), Counter(server.answered())
        calm = Store(work / "calm", server.url, args).finish()
    return {
        "kills": kills,
        "requests": sent.total(),
        "distinct_prompts": len(sent),
        "prompts_sent_twice": sum(n > 1 for n in sent.values()),
        "prompts_answered_twice": sum(n > 1 for n in answered.values()),
        "calls_the_rows_rest_on": metrics["teacher_calls"],
        "calls_of_the_last_build": metrics["teacher_new_calls"],
        "lost_calls": metrics["teacher_store_lost_calls"],
        "rows_equal_undisturbed": metrics["row_digest"] == calm["row_digest"],
        "tasks": metrics["tasks"],
        "rejects": metrics["rejects"],
    }


def faults(model: SmallModel, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    draw, fates = random.Random(args.seed), Counter[str]()

    def behave(n: int, body: dict[str, Any]) -> Answer:
        fate = draw.choice(FAULTS) if draw.random() < 1 / 3 else "well"
        fates[fate] += 1
        if fate == "429":
            return Answer(status=429, text="slow down", headers={"retry-after": "1"})
        if fate == "500":
            return Answer(status=500, text="oh")
        return Answer(raw=b"<html>") if fate == "page" else Answer(model.reply(body), delay=12 * (fate == "hang"))

    with serving(model, behave) as server:
        store = Store(work / "faults", server.url, args, timeout_seconds=6, retries=2)
        began = time.monotonic()
        metrics = store.finish()
        return {
            "requests": dict(sorted(fates.items())),
            "failed_attempts": metrics["teacher_failed_attempts"],
            "rejects": metrics["rejects"],
            "seconds": round(time.monotonic() - began, 1),
            "not_finished": metrics["teacher_not_finished"],
        }


def pace(concurrency: int) -> dict[str, Any]:
    """In this process: how near the build comes to `concurrency / delay` calls a second."""
    from concurrent.futures import ThreadPoolExecutor

    from datasets_build.teacher.asking import Asking
    from datasets_build.teacher.calls import Call
    from datasets_build.teacher.endpoint import Endpoint
    from datasets_build.teacher.settings import TeacherSettings

    os.environ["TEACHER_KEY"] = KEY
    settings = {"model": "scripted", "api_key_env": "TEACHER_KEY", "concurrency": concurrency}
    with TeacherServer(lambda n, prompt: Answer("{}", delay=DELAY)) as server, tempfile.TemporaryDirectory() as folder:
        teacher = TeacherSettings.model_validate({"base_url": server.url, **settings})
        asking = Asking(teacher, "scripted", Path(folder), Endpoint(teacher, Path(folder)), lambda key: None)
        asking.ask(Call("scripted", "first", "{}"))  # the courier has started
        calls = [Call("scripted", f"prompt {i}", "{}") for i in range(10 * concurrency)]
        began = time.monotonic()
        with ThreadPoolExecutor(concurrency) as pool:
            list(pool.map(asking.ask, calls))
        rate = len(calls) / (time.monotonic() - began)
        asking.client.close()
    ideal = concurrency / DELAY
    return {"concurrency": concurrency, "calls_per_second": round(rate, 2), "of_ideal": round(rate / ideal, 3)}


def serving(model: SmallModel, behave: Any = None) -> TeacherServer:
    """A server whose replies ``behave(number, body)`` decides; by default the model's."""
    server = TeacherServer(model=MODEL)
    decide = behave or (lambda n, body: Answer(model.reply(body)))
    server.behave = lambda n, prompt: decide(n, server.bodies[n])
    return server


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pdfs", type=Path, action="append", help="default: the example documents")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--per-document", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("killed", "faults", "pace"))
    parser.add_argument("--work", type=Path, help="keep the stores here instead of a temporary folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "datasets_teacher.json")
    args = parser.parse_args()
    args.pdfs = args.pdfs or [ROOT / "examples" / "pdfs"]
    work = args.work or Path(tempfile.mkdtemp(prefix="longfolio-teacher-"))
    work.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    if args.only != "pace":
        model = SmallModel(Path(os.environ.get("LONGFOLIO_TEST_MODELS", work / "models")))
        for name, part in (("killed", killed), ("faults", faults)):
            if args.only in (None, name):
                results[name] = part(model, work, args)
                print(json.dumps({name: results[name]}, indent=1), flush=True)
    if args.only in (None, "pace"):
        results["pace"] = [pace(n) for n in (1, 4, 16)]
        print(json.dumps({"pace": results["pace"]}, indent=1), flush=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    bad = results.get("killed", {})
    if bad and (bad["prompts_sent_twice"] or not bad["rows_equal_undisturbed"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
