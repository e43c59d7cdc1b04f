"""Exit codes, and errors that say what happened, where, and what to do."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1  # a stage failed
EXIT_USAGE = 2  # wrong usage or input, found before the first stage starts
EXIT_REGRESSED = 3  # the gate failed
EXIT_INTERRUPTED = 130


class UsageError(Exception):
    """Wrong usage or input. ``str`` says what and where, ``remedy`` what to do; exit code 2."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def remedy_of(error: BaseException) -> str | None:
    """The remedy that an error carries (also the libraries' own errors), or one for well-known OS errors.

    None means that this is a defect of ours, worth a traceback.
    """
    import errno

    remedy = getattr(error, "remedy", None)
    if remedy is not None:
        return str(remedy)
    if isinstance(error, OSError):
        return {
            errno.ENOSPC: "free some disk space (longfolio gc shows what can go) or use --store on another disk",
            errno.EDQUOT: "the quota is used up: free some space or use --store on another disk",
            errno.EROFS: "this file system is read-only: use --store with a directory that can be written",
            errno.EACCES: "check the permissions, or use --store with a directory that you may write",
            errno.EPERM: "check the permissions, or use --store with a directory that you may write",
        }.get(error.errno or 0)
    if isinstance(error, MemoryError):
        return "not enough memory: lower train.micro_batch_size or dataset.max_tokens, or use a larger machine"
    return None


# Of CUDA, cuBLAS and NCCL when they start, not of a computation that went wrong.
_MAY_PASS_TEXTS = (
    "cuda-capable device(s) is/are busy or unavailable",
    "cuda error: initialization error",
    "cuda error: system not yet initialized",
    "cublas_status_not_initialized",
    "nccl error",
    "ncclsystemerror",
    "ncclremoteerror",
    "connection closed by localrank",
)


def may_pass(error: BaseException) -> bool:
    """Whether the same again may well succeed: trouble of disk, network or device start-up.

    Never a user's mistake, bad data, a full disk or memory that ran out.
    """
    import errno

    known = getattr(error, "may_pass", None)
    if known is not None:
        return bool(known)
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError) or error.errno in (
            errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH,
            errno.EHOSTUNREACH, errno.EREMOTEIO,
        )  # fmt: skip
    if isinstance(error, RuntimeError) and getattr(error, "remedy", None) is None:
        text = str(error).lower()
        return "out of memory" not in text and any(part in text for part in _MAY_PASS_TEXTS)
    return False
