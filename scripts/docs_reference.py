"""The reference pages, from docstrings. They are read from the source text: every Python version writes the same."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
from dataclasses import dataclass
from enum import Enum, IntFlag
from pathlib import Path

import extmem
from extmem import errors, vk
from scripts.docs_tables import table
from scripts.docstrings import paragraphs
from scripts.public_members import is_public
from scripts.wrap import WIDTH, rewrapped

__all__ = ["pages"]

_HEAD = "<!-- Written by `python -m scripts.docs` from the docstrings. Edit those, not this page. -->\n"
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SKIP = {"errors", "process", "raw", "rules", "torch", "vk"}


@dataclass(frozen=True)
class _Found:
    """A class or function in a file, with the file's text and the folder that its imports start from."""

    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    text: str
    source: Path

    @property
    def bases(self) -> list[str]:
        """The base classes that are plain names."""
        written = self.node.bases if isinstance(self.node, ast.ClassDef) else []
        return [base.id for base in written if isinstance(base, ast.Name)]

    def private_bases(self) -> list[_Found]:
        """The private base classes of the library. Their members are documented as members of the class.

        These are classes of the same file, and classes that the file imports from the library.
        """
        found = []
        for node in ast.parse(self.text).body:
            if isinstance(node, ast.ClassDef) and node.name in self.bases and node.name not in extmem.__all__:
                found.append(_Found(node, self.text, self.source))
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("extmem."):
                names = {alias.name for alias in node.names} & set(self.bases) - {*extmem.__all__, "NamedTuple"}
                found += [_find(self.source, str(node.module), name) for name in sorted(names)]
        return found


def _clean(doc: str | None) -> str:
    return doc.strip() if doc else ""


def _modules(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]


def _find(source: Path, home: str, name: str) -> _Found:
    """Find the definition of a class or function: in the module `home`, below it, or where it imports it from.

    If each system has its own definition, return that of Linux, which is imported last.
    """
    start = source.joinpath(*home.split("."))
    elsewhere: list[str] = []
    for path in _modules(start):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, *_FUNCTIONS)) and node.name == name:
                return _Found(node, text, source)
        elsewhere += [
            node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names)
        ]
    if not elsewhere:
        raise LookupError(f"{name} is a public name of {home}, which does not define it")
    return _find(source, elsewhere[-1], name)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, text: str, *, method: bool) -> str:
    """Return the signature as written, on one line and without `self`."""
    first = node.body[0].lineno
    lines = text.splitlines()[node.lineno - 1 : first]
    head = "\n".join(lines)
    begin = head.index("(")
    depth = 0
    end = begin
    for end in range(begin, len(head)):
        depth += (head[end] in "([{") - (head[end] in ")]}")
        if depth == 0:
            break
    parameters = " ".join(head[begin + 1 : end].split()).removesuffix(",")
    parameters = re.sub(r"\s*#[^\n]*", "", parameters)
    if method:
        parameters = re.sub(r"^(?:self|cls)(?:, )?", "", parameters)
    returns = ast.get_source_segment(text, node.returns) if node.returns is not None else None
    arrow = f" -> {' '.join(returns.split())}" if returns and returns != "None" else ""
    kind = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{kind}{node.name}({parameters}){arrow}"


def _wrapped_signature(signature: str) -> str:
    """Return the signature, with each parameter on a line of its own if one line would be too long."""
    if len(signature) <= WIDTH:
        return signature
    name, _, rest = signature.partition("(")
    parameters, depth = [""], 0
    for position, character in enumerate(rest):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            lines = [f"    {parameter.strip()}," for parameter in parameters]
            return "\n".join([f"{name}(", *lines, rest[position:]])
        if character == "," and depth == 0:
            parameters.append("")
        else:
            parameters[-1] += character
    raise ValueError(f"no closing parenthesis in {signature}")


def _decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {ast.unparse(decorator) for decorator in node.decorator_list}


def _definer(cls: type, member: str) -> str:
    """Return the name of the class that defines a member of `cls`."""
    return next((base.__name__ for base in cls.__mro__ if member in vars(base)), "")


def _members(cls: type, found: _Found) -> str:
    """Return the public attributes, properties and methods of a class as Markdown, in the order of the source.

    cls: the class itself. found: its definition, or that of a base class, whose overridden members are omitted.
    """
    parts: list[str] = []
    body = found.node.body
    parts += filter(None, (_members(cls, base) for base in found.private_bases()))
    for position, node in enumerate(body):
        if isinstance(node, _FUNCTIONS):
            marks = _decorators(node)
            doc = _clean(ast.get_docstring(node))
            if "overload" in marks or any(mark.endswith(".setter") for mark in marks):
                continue
            if _definer(cls, node.name) != found.node.name or not is_public(cls, node.name, doc):
                continue
            if "property" in marks:
                annotation = ast.get_source_segment(found.text, node.returns) if node.returns is not None else ""
                parts.append(f"**`{node.name}`** : `{annotation}`<br>\n{paragraphs(doc)}")
            else:
                parts.append(
                    f"**`{_signature(node, found.text, method=True)}`**<br>\n{paragraphs(doc, _arguments(node))}"
                )
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            after = body[position + 1] if position + 1 < len(body) else None
            doc = (
                _clean(str(after.value.value))
                if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                else ""
            )
            if not is_public(cls, node.target.id, doc):
                continue
            annotation = ast.get_source_segment(found.text, node.annotation)
            parts.append(f"**`{node.target.id}`** : `{annotation}`" + (f"<br>\n{doc}" if doc else ""))
        elif (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and not node.targets[0].id.startswith("_")
            and isinstance(node.value, (ast.Constant, ast.UnaryOp))
            and "IntFlag" in found.bases
        ):
            parts.append(f"**`{node.targets[0].id}`** = `{ast.get_source_segment(found.text, node.value)}`")
    return "\n\n".join(parts)


def _parameters(found: _Found) -> set[str]:
    """Return the names that the docstring of a class or function may describe: parameters, fields and attributes."""
    node = found.node
    if isinstance(node, _FUNCTIONS):
        return _arguments(node)
    names: set[str] = set()
    for base in found.private_bases():
        names |= _parameters(base)
    for member in node.body:
        if isinstance(member, _FUNCTIONS):
            names.add(member.name)
            if member.name in ("__init__", "__new__"):
                names |= _arguments(member)
        elif isinstance(member, ast.AnnAssign):
            names.add(ast.unparse(member.target))
    return names


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    arguments = node.args
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {argument.arg for argument in listed if argument is not None}


def _entry(source: Path, home: str, name: str) -> str:
    found = _find(source, home, name)
    doc = paragraphs(_clean(ast.get_docstring(found.node)), _parameters(found))
    if isinstance(found.node, ast.ClassDef):
        members = _members(getattr(importlib.import_module(home), name), found)
        return f"## `{name}`\n\n{doc}\n" + (f"\n{members}\n" if members else "")
    signature = _wrapped_signature(_signature(found.node, found.text, method=False))
    return f"## `{name}`\n\n```text\n{signature}\n```\n\n{doc}\n"


def _public(source: Path) -> str:
    functions: list[str] = []
    classes: list[str] = []
    for name in extmem.__all__:
        home = extmem._HOME.get(name)
        if home is None or home == "extmem.errors":
            continue
        entry = _entry(source, home, name)
        (classes if name[0].isupper() else functions).append(entry)
    introduction = (
        "# The public names\n\nThe names of `import extmem`. There are separate pages for [errors](errors.md), "
        "[structures and commands of the specification](vk.md), [`extmem.process`](process.md), "
        "[`extmem.raw`](raw.md), [`extmem.torch`](torch.md) and [`extmem.rules`](rules.md).\n\n"
    )
    return _HEAD + introduction + "\n".join([*functions, *classes])


def _errors(source: Path) -> str:
    path = source / "extmem" / "errors.py"
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    parts = [_HEAD, "# Errors\n", paragraphs(_clean(ast.get_docstring(tree))), ""]
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in extmem.__all__:
            bases = ", ".join(f"`{ast.unparse(base)}`" for base in node.bases)
            found = _Found(node, text, source)
            doc = paragraphs(_clean(ast.get_docstring(node)), _parameters(found))
            parts.append(f"## `{node.name}`\n\nA kind of {bases}.\n\n{doc}\n")
            members = _members(getattr(errors, node.name), found)
            if members:
                parts.append(members + "\n")
    return "\n".join(parts)


def _module(source: Path, module: str, title: str) -> str:
    path = source.joinpath(*module.split(".")).with_suffix(".py")
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    names = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    parts = [_HEAD, f"# {title}\n", paragraphs(_clean(ast.get_docstring(tree))), ""]
    constants = _constants(tree, text)
    parts += [constants[name] if name in constants else _entry(source, module, name) for name in names]
    return "\n".join(parts)


def _constants(tree: ast.Module, text: str) -> dict[str, str]:
    """Return the entries of a module's constants. The docstring of a constant is the string below it."""
    found = {}
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(target, ast.Name) and node.value is not None:
            doc = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                doc = f"\n{_clean(str(after.value.value))}\n"
            name = target.id
            found[name] = f"## `{name} = {ast.get_source_segment(text, node.value)}`\n{doc}"
    return found


_TESTING = ("runtime", "leaks", "children", "waiting", "faults", "strategies")


def _testing(source: Path) -> str:
    """Return the page of `extmem.testing`: the docstring of the package, and its modules without private parts."""
    package = source / "extmem" / "testing"
    doc = paragraphs(_clean(ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))))
    parts = [_HEAD, "# `extmem.testing`\n", doc, ""]
    for name in _TESTING:
        page = _module(source, f"extmem.testing.{name}", f"`extmem.testing.{name}`").removeprefix(_HEAD).strip()
        parts.append(re.sub(r"^#", "##", page, flags=re.MULTILINE) + "\n")
    for name in ("conformance", "fake_vulkan", "fake_cuda"):
        text = ast.get_docstring(ast.parse((package / name / "__init__.py").read_text(encoding="utf-8")))
        parts.append(f"## `extmem.testing.{name}`\n\n{paragraphs(_clean(text))}\n")
    return "\n".join(parts)


def _vk(source: Path) -> str:
    structs: list[tuple[str, type[vk.Struct]]] = []
    enums: list[tuple[str, type[Enum]]] = []
    flags: list[tuple[str, type[Enum]]] = []
    for name in sorted(set(vk.__all__)):
        value = getattr(vk, name)
        if not isinstance(value, type) or value.__name__ != name:
            continue  # functions, numbers, and aliases
        if issubclass(value, vk.Struct) and hasattr(value, "C_NAME"):
            structs.append((name, value))
        elif issubclass(value, Enum):
            (flags if issubclass(value, IntFlag) else enums).append((name, value))
    parts = [
        _HEAD,
        "# `extmem.vk`: names of the specification\n",
        "Structures, enums and flags have their own names without `Vk`; fields are in snake_case without the `p` of "
        "pointers. `p_next` is the last field, and every field has a default. Names of an extension also work with "
        "their suffix (`BindBufferMemoryInfoKHR`). `extmem.vk.find(struct, cls)` and `extmem.vk.chain(struct)` search "
        "a pNext chain. `extmem.vk.abi` converts structures to C memory and back.\n",
        "## Structures\n",
        table(
            ("`extmem.vk`", "C", "fields, in order"),
            ((f"`{name}`", f"`{cls.C_NAME}`", _fields(cls)) for name, cls in structs),
        ),
        "\n## Enums\n",
        table(("`extmem.vk`", "values"), ((f"`{name}`", str(len(cls.__members__))) for name, cls in enums)),
        "\n## Flags\n",
        table(("`extmem.vk`", "bits"), ((f"`{name}`", str(len(cls.__members__))) for name, cls in flags)),
    ]
    parts += [
        "\n## Commands\n",
        table(
            ("command", "errors it may return"),
            (
                (f"`{name}`", ", ".join(f"`{code.name}`" for code in command.error_codes) or "–")
                for name, command in sorted(vk.COMMANDS.items())
            ),
        ),
    ]
    numbers = [(name, getattr(vk, name)) for name in sorted(vk.__all__) if isinstance(getattr(vk, name), int)]
    parts += [
        "\n## Numbers\n",
        table(("`extmem.vk`", "value"), ((f"`{name}`", f"`{value:#x}`") for name, value in numbers)),
        "",
        *(_entry(source, "extmem.vk", name) for name in ("chain", "find", "ChainStruct", "Command", "Param", "Struct")),
        *(_entry(source, "extmem.vk.abi", name).replace("## `", "## `abi.", 1) for name in ("from_c", "to_c")),
    ]
    return "\n".join(parts)


def _fields(cls: type[vk.Struct]) -> str:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is not a dataclass: its fields cannot be listed")
    return ", ".join(f"`{field.name}`" for field in dataclasses.fields(cls)) or "–"


def _rules() -> str:
    from extmem.rules import ledger

    parts = [
        _HEAD,
        "# `extmem.rules`: every rule in scope\n",
        "`extmem.rules.ledger.rows()` returns this list, `extmem rules` prints it, and `extmem explain ID` prints one "
        "rule with a wrong and a right call. [The meaning of the statuses](../concepts/rules.md).\n",
    ]
    for family in dict.fromkeys(row.family for row in ledger.rows()):
        parts.append(f"## {family}\n")
        rows = []
        for row in ledger.rows(family=family):
            status = f"{row.status}: {row.checked_by}" if row.checked_by else row.status
            rows.append((f"`{row.vuid.removeprefix('VUID-')}`", row.rule, status))
        parts += [table(("id (`VUID-…`)", "rule", "status"), rows), ""]
    return "\n".join(parts)


def _checks(source: Path) -> str:
    """Return the page of the functions that check calls, and of the facts that they take."""
    from extmem import rules

    introduction = (
        "# `extmem.rules`: checks and facts\n\nFunctions that check a call, for programs that record or submit calls "
        "by another binding, with their arguments and results. [The list of the rules](rules.md).\n"
    )
    documented = (name for name in rules.__all__ if callable(getattr(rules, name)))  # not modules and numbers
    names = sorted(documented, key=lambda name: (name[0].isupper(), name))
    return "\n".join([_HEAD + introduction, *(_entry(source, "extmem.rules", name) for name in names)])


def _index() -> str:
    return _HEAD + (
        "# Reference\n\n"
        "- [The public names](extmem.md): functions, devices, memory, handles\n"
        "- [Errors](errors.md): all error classes with their attributes\n"
        "- [`extmem.vk`](vk.md): structures, enums, flags, commands\n"
        "- [`extmem.rules`](rules.md): every valid-usage rule in scope with its status\n"
        "- [`extmem.rules`: checks and facts](checks.md): the functions that check a call without making it\n"
        "- [`extmem.process`](process.md): children that inherit handles\n"
        "- [`extmem.raw`](raw.md): handles, numbers and fds of other programs and bindings\n"
        "- [`extmem.torch`](torch.md): PyTorch's memory on a GPU, made so that it can be shared where it is\n"
        "- [`extmem.testing`](testing.md): tools for the tests of programs that share memory\n"
    )


def pages(root: Path) -> dict[str, str]:
    """Return the text of every file of docs/reference by its name."""
    source = root / "src"
    made = {
        "README.md": _index(),
        "checks.md": _checks(source),
        "extmem.md": _public(source),
        "errors.md": _errors(source),
        "process.md": _module(source, "extmem.process", "`extmem.process`"),
        "raw.md": _module(source, "extmem.raw", "`extmem.raw`"),
        "torch.md": _module(source, "extmem.torch", "`extmem.torch`"),
        "rules.md": _rules(),
        "testing.md": _testing(source),
        "vk.md": _vk(source),
    }
    return {name: rewrapped(text) for name, text in made.items()}
