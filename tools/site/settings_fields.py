"""Fields of settings in the API reference: `setting(default, text)` is read as a default and the field's own words."""

import ast
from typing import Any

from griffe import Attribute, Class, ExprCall, Extension

__all__ = ["SettingsFields"]

MAKERS = ("setting", "_setting")  # functions of a default and a help text, as the classes of settings name them


class SettingsFields(Extension):
    """Shows a field's default in the signature, and its help text in a list below the class's docstring."""

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """Rewrite the fields of a class before its signature is made of them."""
        lines = []
        for name, member in cls.members.items():
            if not isinstance(member, Attribute) or not isinstance(member.value, ExprCall):
                continue
            if str(member.value.function) not in MAKERS or len(member.value.arguments) != 2:
                continue
            default, text = member.value.arguments
            member.value = default
            lines.append(f"    {name}: {ast.literal_eval(str(text))}")
        if lines and cls.docstring is not None:
            cls.docstring.value = "\n".join([cls.docstring.value.rstrip(), "", "Attributes:", *lines, ""])
