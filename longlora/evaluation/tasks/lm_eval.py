"""Standard short tasks through lm-evaluation-harness (package ``lm-eval``, optional), where their data are at hand.

The harness makes the prompts, asks the model and judges, so that numbers are those of its users; as by default there,
prompts are without a chat format and few-shot examples are drawn by its own seed. From each question one score is
taken: acc_norm, exact_match or acc, whichever the task has first in this order, else its first measure of which more is
better. Nothing is downloaded: a task's data are in the cache of ``datasets``, or beside a task file of one's own, in
which paths are relative to ``evaluate.lm_eval.include_path``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError
from longlora.evaluation.settings import EvaluateSettings, LmEvalSettings
from longlora.evaluation.tasks.base import Context, Result, Sample, Skipped, Task
from longlora.evaluation.tasks.records import chosen
from longlora.prompts import plain_ids

if TYPE_CHECKING:
    from longlora.evaluation.engines import Engine

FEWSHOT_SEED = 1234  # the harness's default
_ACCURACIES = ("acc_norm", "exact_match", "acc")


class LmEval(Task):
    """Mean score over the questions of the tasks asked for."""

    name = "lm_eval"
    version = 1
    metric = "score"
    better = "higher"
    groups = (("subset",),)
    own = True  # it measures by itself, a subset at once: `measure`

    def __init__(self) -> None:
        self._tasks: dict[str, Any] = {}  # the harness's, by name, as `samples` loaded them

    def settings(self, settings: EvaluateSettings) -> dict[str, Any]:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return {"lm_eval": importlib.metadata.version("lm_eval")}
        return {}

    def samples(self, context: Context) -> list[Sample]:
        """One per question: its first request's prompt, and what decides its score.

        Raises:
            Skipped: a task's data are not at hand.
            UserError: the harness is not installed, or a task is unknown or has no fitting measure.
        """
        settings = context.settings
        if not settings.lm_eval.tasks:
            raise Skipped("evaluate.lm_eval.tasks is not set")
        self._tasks = _load(settings.lm_eval)
        found = []
        for subset, task in self._tasks.items():
            measure = _measure_of(subset, task)
            ids = _drawn(subset, len(task.eval_docs), settings)
            task.set_fewshot_seed(seed=FEWSHOT_SEED)
            task.build_all_requests(samples=ids)
            requests: dict[int, list[Any]] = {}
            for request in task.instances:
                requests.setdefault(request.doc_id, []).append(request)
            for place, i in enumerate(ids):
                prompt, *_ = requests[place][0].args
                expected = {
                    "target": str(task.doc_to_target(requests[place][0].doc)),
                    "asked": [str(request.args[1:]) for request in requests[place]],
                    "version": str(task.VERSION),
                    "task": _digest(task),
                }
                tokens = plain_ids(context.tokenizer, prompt)
                about = {"subset": subset, "measure": measure, "tokens": len(tokens)}
                found.append(Sample(f"{subset}/{i}", tokens, expected=expected, about=about, prompt=prompt))
        return found

    def measure(self, engine: Engine, samples: Sequence[Sample], settings: EvaluateSettings) -> list[Result]:
        """The results of samples of one subset, all at once, in their order.

        Raises:
            UserError: the engine holds no transformers model.
        """
        from lm_eval import evaluate
        from lm_eval.models.huggingface import HFLM

        network = getattr(engine, "network", None)
        if network is None:
            raise UserError("lm_eval needs a model in this process", "set evaluate.engine to transformers")
        tokenizer = getattr(engine, "tokenizer", None)
        model = HFLM(pretrained=network, tokenizer=tokenizer, batch_size=settings.batch_size)
        subset = samples[0].about["subset"]
        task = self._tasks[subset]
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
        ids = [int(sample.id.rpartition("/")[2]) for sample in samples]
        loaded = {"tasks": {subset: task}, "groups": {}, "group_map": {}}
        rows = evaluate(model, loaded, samples={subset: ids}, bootstrap_iters=0, log_samples=True)["samples"][subset]
        first = rows[0]["filter"]
        by_id = {row["doc_id"]: row for row in rows if row["filter"] == first}
        return [_result(by_id[i], sample.about["measure"]) for i, sample in zip(ids, samples, strict=True)]

    def details(self, samples: Sequence[Sample], results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
        measures = {sample.about["subset"]: sample.about["measure"] for sample in samples}
        return {"subsets": [{"subset": subset, "measure": measure} for subset, measure in measures.items()]}


def _digest(task: Any) -> str:
    """Of a task's whole configuration: prompts, filters, measures."""
    return hashlib.sha256(json.dumps(task.dump_config(), sort_keys=True, default=str).encode()).hexdigest()[:16]


def _drawn(subset: str, total: int, settings: EvaluateSettings) -> list[int]:
    """Numbers of the questions to ask, in their order."""
    kept = chosen(((f"{subset}/{i}", subset) for i in range(total)), settings)
    return [i for i in range(total) if f"{subset}/{i}" in kept]


def _load(settings: LmEvalSettings) -> dict[str, Any]:
    """The harness's tasks by name; groups and tags become their tasks."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError("evaluate.tasks has lm_eval, and lm-eval is not installed", "pip install lm-eval") from error
    folder = settings.include_path
    if folder is not None and not folder.is_dir():
        raise UserError(f"evaluate.lm_eval.include_path: {folder} is no folder", "give a folder of task files")
    manager = TaskManager(include_path=str(folder.resolve()) if folder else None)
    tasks: dict[str, Any] = {}
    for name in settings.tasks:
        if name not in manager.all_tasks:
            raise UserError(
                f"evaluate.lm_eval.tasks: {name} is no task of lm-eval or of include_path",
                "lm-eval ls tasks names its own; a task file must be valid YAML with a task",
            )
        try:
            with _offline(), contextlib.chdir(folder or Path.cwd()):
                tasks |= manager.load([name])["tasks"]
        except OSError as error:  # not in the cache, no such file, no connection
            raise Skipped(f"the data of {name} are not at hand ({error})") from error
        except ValueError as error:
            raise UserError(f"evaluate.lm_eval.tasks: {name} cannot be loaded: {error}", "correct its file") from error
    for task in tasks.values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
    return tasks


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Both libraries read their environment variable at import only."""
    import datasets
    import huggingface_hub.constants

    places: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = True
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _measure_of(name: str, task: Any) -> str:
    better = task.higher_is_better()
    for measure in (*_ACCURACIES, *better):
        if better.get(measure):
            return str(measure)
    raise UserError(
        f"evaluate.lm_eval.tasks: {name} has no measure of which more is better", "leave it out, or use perplexity"
    )


def _result(row: dict[str, Any], measure: str) -> Result:
    score = float(row[measure])
    verdict = ("correct" if score == 1 else "wrong") if measure in _ACCURACIES else "scored"
    return {"score": score, "verdict": verdict, "output": _output(row, measure), "expected": str(row["target"])}


def _output(row: dict[str, Any], measure: str) -> str:
    """What was written, or the choice that was most likely (acc_norm: per character)."""
    responses = row["filtered_resps"]
    if isinstance(responses[0], str):
        return str(responses[0])
    choices = [str(arguments[1]) for arguments in row["arguments"]]

    def likely(i: int) -> float:
        return float(responses[i][0]) / (max(len(choices[i].strip()), 1) if measure == "acc_norm" else 1)

    return choices[max(range(len(responses)), key=likely)].strip()
