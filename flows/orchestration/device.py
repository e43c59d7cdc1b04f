"""One run per accelerator: a slot on the server for each, which everyone who uses the device takes."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

USES_DEVICE = ("train", "evaluate")
LEASE_SECONDS = 60.0  # after which the slot of a killed holder is free again


def visible_devices() -> list[str]:
    """Ids of the accelerators that this process may use, as CUDA names them; empty on a machine without."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [item.strip() for item in chosen.split(",") if item.strip() not in ("", "-1")]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def slot_name(device: str) -> str:
    """Of the slot of a device of this machine."""
    return re.sub(r"[^a-z0-9]+", "-", f"gpu-{socket.gethostname()}-{device}".lower()).strip("-")


@contextmanager
def device_slots(stage: str, count: int = 1) -> Iterator[None]:
    """Hold the first ``count`` visible devices while ``stage`` runs, if it uses one and there is one.

    All are taken in one request, so that two runs never wait for each other's. Strict: without the slots nothing
    starts, so two runs never share a device by accident.
    """
    devices = visible_devices()[:count] if stage in USES_DEVICE else []
    if not devices:
        yield
        return
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency
    from prefect.exceptions import ObjectAlreadyExists

    names = [slot_name(device) for device in devices]
    with get_client(sync_client=True) as client:
        for name in names:
            with suppress(ObjectAlreadyExists):  # made by another at the same moment
                client.upsert_global_concurrency_limit_by_name(name, 1)
    with concurrency(names, strict=True, lease_duration=LEASE_SECONDS, raise_on_lease_renewal_failure=False):
        yield
