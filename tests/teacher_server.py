"""An OpenAI-compatible endpoint on this machine, with a log of what was asked and what was answered."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "the-right-key"


@dataclass
class Asked:
    """One request. ``answered``: a 200 with a reply was written in full."""

    prompt: str  # sha256 of the request body
    step: str  # question, answer, check, closed-book
    answered: bool = False


@dataclass
class Answer:
    """What to do with a request: ``status`` and body, after ``delay`` seconds."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    usage: bool = True
    raw: bytes | None = None  # instead of a chat completion


def step_of(prompt: str) -> str:
    """Which of the four prompts this is."""
    if "Judge two things" in prompt:
        return "check"
    if "Give as evidence" in prompt:
        return "answer"
    return "closed-book" if "Answer from what you know" in prompt else "question"


def teacher(prompt: str) -> str:
    """A conscientious teacher that knows no English: it asks about, and quotes, whole sentences."""
    step = step_of(prompt)
    texts = re.findall(r"=== [\w ]+ begins ===\n(.*?)\n=== [\w ]+ ends ===", prompt, re.DOTALL)
    sentences = [[s for s in re.findall(r"[A-Z][^.!?\n]*[.!?]", t) if len(s.split()) > 8] for t in texts]
    if step == "check":
        return json.dumps({"answerable": True, "supported": True, "reason": "it stands there"})
    if step == "closed-book":
        return json.dumps({"answer": None})
    if step == "question":
        words = " and ".join(s[0].rstrip(".")[:60] for s in sentences if s)
        return json.dumps({"question": f"What does the text say where it speaks of “{words}”?"})
    asked = re.search(r"“(.*?)”", prompt.split("\nTask: ", 1)[1].splitlines()[0])
    wanted = asked.group(1).split(" and ") if asked else []
    quotes = []
    for found in sentences:
        near = [s for s in found if any(s.startswith(w) for w in wanted)]
        quotes.append((near or found)[0])
    return json.dumps({"answer": "It says this: " + " ".join(quotes), "evidence": quotes})


class TeacherServer:
    """``behave(number, prompt)`` decides on each request; by default the teacher answers."""

    def __init__(
        self, behave: Callable[[int, str], Answer] | None = None, delay: float = 0.0, model: str = "scripted"
    ) -> None:
        self.delay = delay
        self.model = model
        self.behave = behave or (lambda n, prompt: Answer(teacher(prompt), delay=self.delay))
        self.log: list[Asked] = []
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.serve(self)

            def log_message(self, *args: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def __enter__(self) -> TeacherServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers["content-length"]))
        body = json.loads(raw)
        prompt = body["messages"][-1]["content"]
        asked = Asked(hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest(), step_of(prompt))
        with self.lock:
            number = len(self.log)
            self.log.append(asked)
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.in_flight += 1
            self.most_in_flight = max(self.in_flight, self.most_in_flight)
        if handler.headers["authorization"] != f"Bearer {KEY}":
            answer = Answer(status=401, text=f"no such key: {handler.headers['authorization']}")
        elif handler.path != "/v1/chat/completions" or body["model"] != self.model:
            answer = Answer(status=404, text="no such model")
        else:
            answer = self.behave(number, prompt)
        time.sleep(answer.delay)
        with self.lock:
            self.in_flight -= 1
        try:
            self._write(handler, answer, prompt)
        except (BrokenPipeError, ConnectionResetError):
            return  # nobody waits any more
        asked.answered = answer.status == 200

    def answered(self) -> list[str]:
        return [a.prompt for a in self.log if a.answered]

    def sent(self) -> list[str]:
        return [a.prompt for a in self.log]

    @staticmethod
    def _write(handler: BaseHTTPRequestHandler, answer: Answer, prompt: str) -> None:
        if answer.raw is not None:
            data = answer.raw
        elif answer.status != 200:
            data = json.dumps({"error": {"message": answer.text, "code": answer.headers.get("x-code")}}).encode()
        else:
            usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(answer.text) // 4}
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer.text}}
            reply = {"id": "x", "object": "chat.completion", "choices": [choice]}
            data = json.dumps({**reply, **({"usage": usage} if answer.usage else {})}).encode()
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
