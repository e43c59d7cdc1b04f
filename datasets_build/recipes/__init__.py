"""The recipes, by name. Importing this package registers all of them."""

from datasets_build.recipes import (
    about,
    abstract,
    acronym,
    caption,
    continuation,
    documents,
    locate,
    needle,
    number,
    order,
    outline,
    quote,
    reference,
    section,
    title,
)
from datasets_build.recipes.base import RECIPES, Candidate, FromWindow, Recipe, Reject

__all__ = [
    "RECIPES",
    "Candidate",
    "FromWindow",
    "Recipe",
    "Reject",
    "about",
    "abstract",
    "acronym",
    "caption",
    "continuation",
    "documents",
    "locate",
    "needle",
    "number",
    "order",
    "outline",
    "quote",
    "reference",
    "section",
    "title",
]
