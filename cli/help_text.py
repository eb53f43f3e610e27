"""Commands whose --help fits any width: flags without a type (typer writes <bool>), paragraphs that flow."""

from __future__ import annotations

import inspect
from typing import Any

from typer.core import TyperCommand, TyperGroup

__all__ = ["Command", "Group"]


class Command(TyperCommand):
    """A command without a type behind its flags, and without the line breaks of its docstring."""

    def __init__(self, *args: Any, help: str | None = None, **options: Any) -> None:  # noqa: A002 (typer's name)
        super().__init__(*args, help=None if help is None else _flowing(help), **options)

    def get_params(self, ctx: Any) -> list[Any]:
        """Options and arguments, as the parser and the help want them."""
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands without a type behind its flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Options of the group, as the parser and the help want them."""
        return _without_types(super().get_params(ctx))


def _flowing(text: str) -> str:
    """Paragraphs of one line each; indented ones, which are examples, stay."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(each if each.startswith(" ") else each.replace("\n", " ") for each in paragraphs)


def _without_types(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params
