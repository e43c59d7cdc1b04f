"""A transformers model on this machine as the teacher."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from datasets_build.teacher.calls import Call, Failure, Reply, Usage
from datasets_build.teacher.responses import Responses
from datasets_build.teacher.settings import TeacherSettings
from longlora.models import load_model, load_tokenizer
from longlora.prompts import encode_prompt
from pdf2txt.errors import UserError


class LocalModel:
    """Sends calls to a model in this process, one at a time; loaded with the first call."""

    def __init__(self, settings: TeacherSettings, units: Path, folder: Path) -> None:
        """``folder``: the model as a Hugging Face directory.

        Raises:
            UserError: it has no tokenizer, or one without a chat template.
        """
        self.settings = settings
        self.responses = Responses(units)
        self.folder = folder
        self.lock = threading.Lock()
        self.model: Any = None
        self.tokenizer = load_tokenizer(folder)
        if not self.tokenizer.chat_template:
            raise UserError(
                f"dataset.teacher.local: the tokenizer in {folder} has no chat template",
                "use a model that was trained to follow instructions",
            )

    def send(self, call: Call) -> tuple[Reply, bool] | Failure:
        """The reply to a call, and whether another process had it."""
        with self.lock, self.responses.sending(call, self.settings.output_tokens) as mark:
            stored = self.responses.get(call.key)
            if stored is not None:
                mark.lost = 0
                return stored, True
            ids = encode_prompt(self.tokenizer, "chat", call.prompt)
            limit = self._window() - self.settings.output_tokens
            if len(ids) > limit:
                return Failure("refused", "prompt-too-long", f"{len(ids)} tokens, the teacher takes {limit}")
            mark.answered(self._generate(ids, json.loads(call.parameters)))
            reply = self.responses.get(call.key)
            assert reply is not None
            return reply, False

    def close(self) -> None:
        """Nothing is in flight once ``send`` returned."""

    def _window(self) -> int:
        config = json.loads((self.folder / "config.json").read_text())
        return int(config.get("max_position_embeddings", 1 << 30))

    def _generate(self, ids: list[int], parameters: dict[str, float]) -> Reply:
        from longlora.hardware import resolve_device, resolve_dtype
        from longlora.inference import generate

        if self.model is None:
            loaded: Any = load_model(self.folder, dtype=resolve_dtype("auto"))
            self.model = loaded.to(resolve_device("auto"))
        text = generate(
            self.model,
            self.tokenizer,
            ids,
            max_new_tokens=self.settings.output_tokens,
            temperature=parameters.get("temperature") or 0.0,
            top_p=parameters.get("top_p") or 1.0,
            seed=len(ids),  # a sampled reply is the same again in another process
        )
        written = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return Reply(text, written < self.settings.output_tokens, Usage(1, len(ids), written))
