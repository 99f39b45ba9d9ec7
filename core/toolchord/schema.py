"""Owns reading JSON Schema: as Python type text, as a one-line shape, and as a check of plain data."""

from __future__ import annotations

import keyword
import math
import re
import reprlib
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = [
    "TypeWriter",
    "accepts_object",
    "dereference",
    "final_keys",
    "identifier",
    "is_name",
    "parameter_list",
    "problems",
    "recursive_ref",
    "shape",
]

Schema = Mapping[str, Any]
Known = dict[tuple[int, int], bool]

_DEPTH = 6  # deeper structure says `Any`: a stub is read, not checked
_TYPES = 2_000  # in one schema, past which the rest says `Any` too
_LITERALS = 24
_FIELDS = 60
_SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_FORMATS = {
    "date-time": "datetime",
    "date": "date",
    "time": "time",
    "duration": "timedelta",
    "uuid": "UUID",
    "binary": "bytes",
    "decimal": "Decimal",
}
_MISSING: Any = object()

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlevel = 3


def brief(value: Any) -> str:
    """A bounded repr, cheap for values of any size."""
    try:
        return _short.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return f"({type(value).__name__} too large to show)"


def dereference(schema: Any, root: Schema) -> Any:
    """Follow local ``$ref``s of a schema; siblings of a ref win over its target. An unknown ref gives ``{}``."""
    seen = set()
    while isinstance(schema, Mapping) and isinstance(ref := schema.get("$ref"), str):
        if ref in seen:
            return {}
        seen.add(ref)
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        target: Any = root
        for part in ref.removeprefix("#").strip("/").split("/"):
            if part:
                part = part.replace("~1", "/").replace("~0", "~")
                target = target.get(part, {}) if isinstance(target, Mapping) else {}
        schema = {**target, **rest} if rest and isinstance(target, Mapping) else target
    return schema


def final_keys(schema: Any, *, closed: bool, root: Schema | None = None, depth: int = 0) -> dict[str, Any] | None:
    """The keys that a result can have: ``{"keys": {name: ...}}`` and ``{"items": ...}``; None where others may come.

    Args:
        schema: JSON Schema of the result.
        closed: objects that say nothing of other keys have none; else only ``additionalProperties: false`` says so.
    """
    root = schema if root is None else root
    schema = dereference(schema, root)
    if not isinstance(schema, Mapping) or depth > _DEPTH or {"anyOf", "oneOf", "allOf"} & schema.keys():
        return None
    if schema.get("type") == "array" and "prefixItems" not in schema:
        item = final_keys(schema.get("items"), closed=closed, root=root, depth=depth + 1)
        return {"items": item} if item is not None else None
    properties = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(properties, Mapping) or len(properties) > _FIELDS:
        return None
    if schema.get("additionalProperties", not closed) is not False or schema.get("patternProperties"):
        return None
    deeper = {name: final_keys(sub, closed=closed, root=root, depth=depth + 1) for name, sub in properties.items()}
    return {"keys": deeper}


def recursive_ref(schema: Schema) -> str | None:
    """The first ``$ref`` that leads back to itself, or None."""

    def walk(node: Any, open_refs: tuple[str, ...]) -> str | None:
        if isinstance(node, Mapping):
            ref = node.get("$ref")
            if isinstance(ref, str):
                if ref in open_refs:
                    return ref
                if found := walk(dereference({"$ref": ref}, schema), (*open_refs, ref)):
                    return found
            children = [value for key, value in node.items() if key not in ("$defs", "definitions")]
        else:
            children = list(node) if isinstance(node, list) else []
        return next((found for child in children if (found := walk(child, open_refs))), None)

    return walk(schema, ())


def accepts_object(schema: Any, root: Schema) -> bool:
    """Whether a JSON object could be a value of the schema."""
    schema = dereference(schema, root)
    if not isinstance(schema, Mapping):
        return schema is not False
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        return any(accepts_object(branch, root) for branch in branches)
    if "enum" in schema or "const" in schema:
        return any(isinstance(value, dict) for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    return kind is None or kind == "object" or (isinstance(kind, list) and "object" in kind)


class TypeWriter:
    """Writes Python annotations for schemas and collects the TypedDicts that they need.

    Attributes:
        definitions: source text of each TypedDict by its name, in the order they are needed.
    """

    def __init__(self, *, inline: bool = False) -> None:
        """With `inline`, objects are written in place, as ``{"rows": list[int]}``, and need no definitions."""
        self.inline = inline
        self.definitions: dict[str, str] = {}
        self._refs: dict[tuple[int, str], str] = {}
        self._left = _TYPES
        self._roots: list[Schema] = []  # keeps the roots alive: `_refs` knows them by id

    def write(self, schema: Any, name: str = "Value", *, root: Schema | None = None) -> str:
        """The annotation of one schema.

        Args:
            schema: a JSON Schema.
            name: what to call its TypedDict if it needs one and the schema has no title of its own.
            root: the document in which ``$ref``s are looked up; the schema itself when None.
        """
        root = schema if root is None else root
        self._roots.append(root)
        self._left = _TYPES
        return self._text(schema, root, name, 0)

    def _text(self, schema: Any, root: Schema, name: str, depth: int) -> str:
        self._left -= 1
        if not isinstance(schema, Mapping) or depth > _DEPTH or self._left < 0:
            return "Any"
        if isinstance(ref := schema.get("$ref"), str):
            return self._reference(ref, dereference(schema, root), root, name, depth)
        if "const" in schema or "enum" in schema:
            return self._literal(schema)
        for key in ("anyOf", "oneOf"):
            if isinstance(branches := schema.get(key), list) and branches:
                return self._union([self._text(branch, root, name, depth + 1) for branch in branches])
        if isinstance(whole := schema.get("allOf"), list) and len(whole) == 1:
            return self._text(whole[0], root, name, depth + 1)
        kind = schema.get("type")
        if isinstance(kind, list):
            return self._union([self._text({**schema, "type": one}, root, name, depth + 1) for one in kind])
        if kind == "array":
            return self._array(schema, root, name, depth)
        if kind == "object" or "properties" in schema:
            return self._object(schema, root, name, depth)
        if kind == "string" and schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        return _SCALARS.get(str(kind)) or "Any"

    def _reference(self, ref: str, target: Any, root: Schema, name: str, depth: int) -> str:
        if not (isinstance(target, Mapping) and target.get("properties")):
            # A chain of aliases that leads back to itself ends at the depth limit.
            return self._text(target, root, name, depth + 1)
        key = (id(root), ref)
        if key not in self._refs:
            title = str(target.get("title") or ref.rsplit("/", 1)[-1])
            if self.inline:
                self._refs[key] = _type_name(title)
                text = self._object(target, root, title, depth)
                del self._refs[key]
                return text
            self._object({**target, "title": title}, root, title, depth, key)
        return self._refs[key]

    def _union(self, texts: list[str]) -> str:
        unique = list(dict.fromkeys(texts))
        if "Any" in unique:
            return "Any"
        return " | ".join(sorted(unique, key=lambda text: text == "None"))

    def _literal(self, schema: Schema) -> str:
        values = schema.get("enum", [schema.get("const")])
        plain = all(value is None or isinstance(value, str | int | bool) for value in values)
        if not plain or len(values) > _LITERALS or not values:
            kinds = {type(value) for value in values}
            return kinds.pop().__name__ if len(kinds) == 1 and kinds <= {str, int, float} else "Any"
        if all(value is None for value in values):
            return "None"
        text = ", ".join(repr(value) for value in values if value is not None)
        return f"Literal[{text}]" + (" | None" if None in values else "")

    def _array(self, schema: Schema, root: Schema, name: str, depth: int) -> str:
        if isinstance(prefix := schema.get("prefixItems"), list) and prefix:
            return f"tuple[{', '.join(self._text(item, root, name, depth + 1) for item in prefix)}]"
        outer = "set" if schema.get("uniqueItems") else "list"
        items = schema.get("items", True)
        return f"{outer}[{self._text(items, root, _singular(name), depth + 1)}]"

    def _object(self, schema: Schema, root: Schema, name: str, depth: int, key: tuple[int, str] | None = None) -> str:
        properties = schema.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            extra = schema.get("additionalProperties")
            value = self._text(extra, root, name, depth + 1) if isinstance(extra, Mapping) else "Any"
            return f"dict[str, {value}]"
        title = str(schema.get("title") or name)
        if title in ("Result", "Arguments", "Model"):  # says nothing, and every tool has one
            title = name
        type_name = "" if self.inline else self._reserve(_type_name(title), key)
        required = schema.get("required", ())
        fields = []
        for field, sub in list(properties.items())[:_FIELDS]:
            text = self._text(sub, root, f"{title}_{field}", depth + 1)
            fields.append((str(field), text, field in required, _remark(sub, root)))
        if self.inline:
            body = ", ".join(f'"{field}"{"" if always else "?"}: {text}' for field, text, always, _ in fields)
            return "{" + body + (", ..." if len(properties) > _FIELDS else "") + "}"
        return self._settle(type_name, self._definition(type_name, fields, len(properties)), key)

    def _reserve(self, name: str, key: tuple[int, str] | None) -> str:
        """Give a definition its place before its fields are written, so that it may refer to itself."""
        number, unique = 2, name
        while unique in self.definitions:
            unique, number = f"{name}{number}", number + 1
        self.definitions[unique] = ""
        if key:
            self._refs[key] = unique
        return unique

    def _settle(self, name: str, definition: str, key: tuple[int, str] | None) -> str:
        """Keep a definition, or drop it for one that says the same under another number."""
        base = name.rstrip("0123456789")
        for other, text in self.definitions.items():
            if other != name and other.startswith(base) and text == re.sub(rf"\b{name}\b", other, definition):
                del self.definitions[name]
                if key:
                    self._refs[key] = other
                return other
        self.definitions[name] = definition
        return name

    def _definition(self, name: str, fields: list[tuple[str, str, bool, str]], total: int) -> str:
        typed = [(field, text if always else f"NotRequired[{text}]", remark) for field, text, always, remark in fields]
        more = [f"    # … {total - len(fields)} more keys"] if total > len(fields) else []
        if all(is_name(field) for field, _, _ in typed):
            lines = [f"    {field}: {text}{remark}" for field, text, remark in typed]
            return "\n".join([f"class {name}(TypedDict):", *lines, *more])
        lines = [f"    {field!r}: {text},{remark}" for field, text, remark in typed]
        return "\n".join([f'{name} = TypedDict("{name}", {{', *lines, *more, "})"])


def identifier(text: str) -> str:
    """The text with runs of characters that no Python name has as one ``_``; empty when nothing is left.

    Names are normalised as Python's parser does (NFKC), or a program could not spell them.
    """
    text = unicodedata.normalize("NFKC", text)
    if text.isidentifier():
        return text
    return re.sub(r"_*\0+_*", "_", "".join(c if f"_{c}".isidentifier() else "\0" for c in text)).strip("_")


def _type_name(title: str) -> str:
    name = "".join(part[:1].upper() + part[1:] for part in identifier(title).split("_"))
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"T{name}"


def _singular(name: str) -> str:
    return name[:-1] if len(name) > 3 and name.endswith("s") and not name.endswith("ss") else f"{name}_item"


def _remark(schema: Any, root: Schema) -> str:
    text = schema.get("description") if isinstance(schema, Mapping) else None
    return f"  # {' '.join(text.split())[:200]}" if isinstance(text, str) and text.strip() else ""


def shape(schema: Schema) -> str:
    """One line that shows a schema, such as ``{"rows": list[{"id": int, "note"?: str}]}``."""
    text = TypeWriter(inline=True).write(schema)
    return text if len(text) <= 2000 else text[:2000] + " …"


def parameter_list(
    schema: Schema, writer: TypeWriter | None = None, *, name: str = "Arguments", rest: str | None = None
) -> list[str]:
    """The parameters of an argument schema as Python text, required ones first: ``limit: int = 5``.

    Args:
        schema: an object schema.
        writer: collects the definitions that the types need; without one, types are written in place.
        name: what nested types are named after.
        rest: the property that is ``*args``.
    """
    writer = writer or TypeWriter(inline=True)
    required = set(schema.get("required", ()))
    texts = []
    open_ended = schema.get("additionalProperties", False) not in (False, None)
    for field, sub in sorted(schema.get("properties", {}).items(), key=lambda item: item[0] not in required):
        if field == rest:
            texts.append(f"*{field}")
            continue
        if not is_name(field):  # only ``**{"first-name": ...}`` can give it
            open_ended = True
            continue
        text = f"{field}: {writer.write(sub, f'{name}_{field}', root=schema)}"
        if field not in required:
            resolved = dereference(sub, schema)
            default = resolved.get("default", _MISSING) if isinstance(resolved, Mapping) else _MISSING
            text += " = ..." if default is _MISSING or len(repr(default)) > 60 else f" = {default!r}"
        texts.append(text)
    more = "more"
    while more in schema.get("properties", {}):
        more += "_"
    return [*texts, f"**{more}"] if open_ended else texts


def is_name(text: str) -> bool:
    """Whether Python takes the text as the name of a keyword argument or field."""
    return text.isidentifier() and not keyword.iskeyword(text)


def problems(
    value: Any, schema: Any, *, root: Schema | None = None, path: str = "", known: Known | None = None
) -> Iterator[str]:
    """What is wrong with plain data, one line per problem; nothing when it fits.

    Covers what tool schemas use: types, enum, const, required, properties, additionalProperties, items, anyOf, oneOf,
    allOf, bounds and lengths. A keyword it does not know rules nothing out; patterns are not run, for they could stall.
    The other arguments are for the recursion; `known` says which parts fit which branches, or alternatives that nest
    would take exponential time.
    """
    root = schema if root is None else root
    known = {} if known is None else known
    schema = dereference(schema, root)
    if not isinstance(schema, Mapping):
        if schema is False:
            yield f"{path or 'value'}: not allowed"
        return
    label = path or "value"
    for branch in schema.get("allOf", ()):
        yield from problems(value, branch, root=root, path=path, known=known)
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches and not any(_fits(value, branch, root, known) for branch in branches):
        yield f"{label}: expected {shape({**schema, '$defs': root.get('$defs', {})})}, got {_kind(value)}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{label}: expected one of {schema['enum']!r:.200}, got {brief(value)}"
    if "const" in schema and value != schema["const"]:
        yield f"{label}: expected {brief(schema['const'])}, got {brief(value)}"
    kinds = schema.get("type")
    if kinds is not None and not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        yield f"{label}: expected {kinds if isinstance(kinds, str) else ' or '.join(kinds)}, got {_kind(value)}"
        return
    yield from _bounds(value, schema, label)
    if isinstance(value, Mapping):
        yield from _object_problems(value, schema, root, path, known)
    elif isinstance(value, list | tuple) and "items" in schema:
        for index, item in enumerate(value):
            yield from problems(item, schema["items"], root=root, path=f"{path}[{index}]", known=known)


def _fits(value: Any, branch: Any, root: Schema, known: Known) -> bool:
    key = (id(value), id(branch))  # both live as long as the check
    if key not in known:
        known[key] = True  # a branch that leads back to itself rules nothing out
        known[key] = next(problems(value, branch, root=root, known=known), None) is None
    return known[key]


def _object_problems(value: Mapping[Any, Any], schema: Schema, root: Schema, path: str, known: Known) -> Iterator[str]:
    properties = schema.get("properties", {})
    prefix = f"{path}." if path else ""
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{prefix}{name}: missing"
    extra = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in properties:
            yield from problems(item, properties[name], root=root, path=f"{prefix}{name}", known=known)
        elif extra is False:
            yield f"{prefix}{name}: unexpected"
        elif isinstance(extra, Mapping):
            yield from problems(item, extra, root=root, path=f"{prefix}{name}", known=known)


def _bounds(value: Any, schema: Schema, label: str) -> Iterator[str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            yield f"{label}: must be at least {schema['minimum']}, got {value}"
        if "maximum" in schema and value > schema["maximum"]:
            yield f"{label}: must be at most {schema['maximum']}, got {value}"
    if isinstance(value, str | list | tuple):
        unit = "Length" if isinstance(value, str) else "Items"
        if len(value) < schema.get(f"min{unit}", 0):
            yield f"{label}: must have at least {schema[f'min{unit}']}, has {len(value)}"
        if len(value) > schema.get(f"max{unit}", math.inf):
            yield f"{label}: must have at most {schema[f'max{unit}']}, has {len(value)}"


def _is(value: Any, kind: str) -> bool:
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "integer":
        return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value % 1 == 0)
    if kind == "string":  # JSON has no dates and no bytes: those travel as strings
        return not isinstance(value, bool | int | float | list | tuple | set | Mapping) and value is not None
    if kind == "array":
        return isinstance(value, list | tuple | set | frozenset)
    if kind == "object":
        return isinstance(value, Mapping)
    return value is None if kind == "null" else isinstance(value, bool)


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {brief(value)}"
