"""The recipes, by name. Importing this package registers all of them."""

from datasets_build.recipes import (
    abstract,
    acronym,
    caption,
    continuation,
    locate,
    number,
    order,
    outline,
    quote,
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
    "abstract",
    "acronym",
    "caption",
    "continuation",
    "locate",
    "number",
    "order",
    "outline",
    "quote",
    "section",
    "title",
]
