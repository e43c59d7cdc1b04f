"""Documents -> instruction data: every answer stands in the document, every row says where.

The way of a row: ``reading`` (a document as passages) -> ``recipes`` (a question and its answer) ->
``window`` (as much text as fits) -> ``build`` (the row, one unit per document and recipe) -> ``select``
(duplicates, split, mix) -> ``gates`` -> ``publish`` (Parquet and card). ``stage.run`` does all of it.
"""
