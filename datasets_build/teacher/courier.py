"""The process that talks to the endpoint: one request per line in, one outcome per line out.

It is a process of its own, in a session of its own, so that a build that is killed loses no reply: when its
input ends, the courier waits for the calls in flight (each bounded by the timeout), keeps their replies in the
store, and ends. The next build finds them there, or waits for them.

``python -m datasets_build.teacher.courier UNITS BASE_URL API_KEY_ENV CONCURRENCY``
"""

from __future__ import annotations

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from datasets_build.teacher.calls import Call, Failure, Reply, Usage
from datasets_build.teacher.responses import Responses

if TYPE_CHECKING:
    from openai import OpenAI

NO_KEY = "none"  # the client wants some key; servers without keys read none
WAIT_STATUS = (408, 409, 425, 429)
FATAL_STATUS = (401, 402, 403, 404)


def main(argv: list[str]) -> int:
    """Serve requests until the input ends; returns the exit code."""
    root, base_url, key_env, concurrency = argv
    client = open_client(base_url, os.environ.get(key_env, "").strip())
    responses = Responses(Path(root))
    out, lock = sys.stdout.buffer, threading.Lock()
    closing = threading.Event()

    def serve(line: bytes) -> None:
        asked = json.loads(line)
        if closing.is_set():
            return  # waited for its turn while the build went away
        outcome = send(client, responses, Call(**asked["call"]), asked["output_tokens"], asked["timeout"])
        _write(out, lock, {"id": asked["id"], **outcome})

    with ThreadPoolExecutor(int(concurrency)) as pool:
        for line in sys.stdin.buffer:
            pool.submit(serve, line)
        closing.set()
    return 0


def open_client(base_url: str, key: str) -> OpenAI:
    """The client of an endpoint. Retries are ours: they count against budget and rate limit."""
    from openai import OpenAI

    return OpenAI(base_url=base_url, api_key=key or NO_KEY, max_retries=0)


def send(client: OpenAI, responses: Responses, call: Call, output_tokens: int, timeout: float) -> dict[str, Any]:
    """Send a call once, unless its reply is there: ``{"reply", "reused"}`` or ``{"failure"}``."""
    with responses.sending(call, output_tokens) as mark:
        reply = responses.get(call.key)
        if reply is not None:  # another process sent it while we waited for the mark
            mark.lost = 0
            return {"reply": reply.to_json(), "reused": True}
        mark.sent()
        result = request(client, call, timeout)
        if isinstance(result, Reply):
            mark.answered(result)
            return {"reply": result.to_json(), "reused": False}
        if result.trouble != "unknown":
            mark.failed()
        return {"failure": vars(result)}


def request(client: OpenAI, call: Call, timeout: float) -> Reply | Failure:
    """One HTTP request, and what came of it."""
    import openai

    body = json.loads(call.parameters)
    try:
        completion = client.chat.completions.with_raw_response.create(
            model=call.model,
            messages=[{"role": "user", "content": call.prompt}],
            timeout=timeout,
            extra_body=body,
            extra_headers={"Idempotency-Key": call.key},  # for gateways that know it
        )
        text = completion.text
    except openai.APITimeoutError:
        return Failure("unknown", "timeout", f"no reply within {timeout:g} s")
    except openai.APIConnectionError as error:
        return Failure("passing", "no-connection", _first_line(error.__cause__ or error))
    except openai.APIStatusError as error:
        message = _first_line(error).replace(client.api_key, "[key]")  # some servers repeat it
        return failure_of(error.status_code, error.response.headers, error.body, message)
    try:
        return reply_of(json.loads(text), call)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        # A reply was sent, and perhaps paid, but it is none of this interface: a proxy's page, say.
        start = text[:200].replace(client.api_key, "[key]")
        return Failure("unknown", "no-completion", f"the endpoint sent no chat completion: {start}")


def reply_of(data: Any, call: Call) -> Reply:
    """The reply in a chat completion's body; text that is missing counts as empty."""
    choice = data["choices"][0]
    text = choice["message"].get("content") or ""
    usage = data.get("usage") or {}
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if isinstance(prompt, int) and isinstance(completion, int):
        counted = Usage(1, prompt, completion, 0)
    else:
        counted = Usage(1, call.prompt_bound, len(text.encode()), 1)
    return Reply(str(text), choice.get("finish_reason") != "length", counted)


def failure_of(status: int, headers: Any, body: Any, message: str) -> Failure:
    """What an HTTP status means for this call and for the others."""
    details = body if isinstance(body, dict) else {}
    words = f"{details.get('code', '')} {details.get('type', '')}"
    if "insufficient_quota" in words or "billing" in words:
        return Failure("exhausted", "account-exhausted", message)
    if status == 429:
        return Failure("passing", "rate-limited", message, _retry_after(headers))
    if status in WAIT_STATUS or status >= 500:
        return Failure("passing", "server-error", message, _retry_after(headers))
    return Failure("fatal" if status in FATAL_STATUS else "refused", "refused-by-endpoint", message)


def _retry_after(headers: Any) -> float | None:
    """Seconds that the endpoint asks to wait: a number of seconds, of milliseconds, or a date."""
    from email.utils import parsedate_to_datetime
    from time import time

    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers["retry-after"]
    except (KeyError, ValueError):
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time())
        except ValueError:
            return None


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__


def _write(out: IO[bytes], lock: threading.Lock, outcome: dict[str, Any]) -> None:
    try:
        with lock:
            out.write(json.dumps(outcome).encode() + b"\n")
            out.flush()
    except (BrokenPipeError, ValueError):
        pass  # the build is gone; the reply is in the store


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # The pipe of a build that was killed is broken: flushing it again at exit would only complain.
    os._exit(code)
