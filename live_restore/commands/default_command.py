"""A group of commands of which one is meant where none is named: ``bench PACKAGE`` beside ``bench live``.

Receives the words after the group's name; hands them on to the command that is named first, or to the one that is meant where
none is. It does not know any command.
"""

from typing import Any

from typer.core import TyperGroup


class DefaultCommandGroup(TyperGroup):
    """A group whose command named `default` takes every line that begins with no command's name."""

    default = "networks"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command's name before words that name none."""
        if self.default in self.commands and (not args or args[0] not in self.commands):
            args = [self.default, *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; the default one goes by the group's name, since nobody types its own."""
        name, command, rest = super().resolve_command(ctx, args)
        return (None if name == self.default else name), command, rest
