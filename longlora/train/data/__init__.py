"""From documents or dataset rows to the rows of every step, without holding any of them in memory.

    sources    documents and dataset rows, one at a time                 names, text, messages
    tokens     their tokens, and which of them are learned               names, ids
    cache      all of that on disk, once: ``work/tokens``                TokenCache
    samples    what is read from the cache as one sample: index arrays   Samples
    packing    which samples share a row: best fit on lengths alone      Rows
    stream     rows in training order, a function of the seed, so that "data position" is simply the step
    collate    rows -> tensors; position_ids start anew at every sample, which keeps attention inside it

Only ``collate`` and what it is given exist as tokens in memory: a batch at a time.
"""

from longlora.train.data.collate import MULTIPLE, collate
from longlora.train.data.load import plain_text_samples, sft_samples, text_samples, training_samples
from longlora.train.data.packing import Packing, Rows, Stream, make_rows, pack, stream, stream_digest
from longlora.train.data.samples import IGNORE, Row, Sample, Samples
from longlora.train.data.sources import train_documents

__all__ = [
    "IGNORE", "MULTIPLE", "Packing", "Row", "Rows", "Sample", "Samples", "Stream", "collate", "make_rows", "pack",
    "plain_text_samples", "sft_samples", "stream", "stream_digest", "text_samples", "train_documents",
    "training_samples",
]  # fmt: skip
