"""Documents -> instruction data: every answer stands in the document, every row says where.

The way of a row: ``corpus`` (documents by reference) -> ``reading`` (one as passages) -> ``recipes`` (a question
and its answer) -> ``window``, ``company``, ``layout`` (as much text as fits, of one document or several) -> ``build``
(the row, one unit per document and recipe) -> ``select`` and ``mix`` (duplicates, split, sample) -> ``gates`` ->
``publish`` (Parquet and card). ``stage.run`` does all of it.
"""
