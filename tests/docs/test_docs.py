"""What the documentation says, checked against the code."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
from pydantic import BaseModel, SecretStr

from src.api.errors import status_of
from src.api.inference_api import parse
from src.core import errors
from src.core.config import ROOT, Settings
from src.core.errors import InferenceError
from src.core.stores.base import FileEntry, content_digest
from src.inference.options import CommonOptions, OllamaOptions, TransformersOptions, validate_options
from tests.service import environment

READMES = ("README.md", "README.zh-TW.md")
PAGES = sorted({*READMES, "CHANGELOG.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))})
USAGE = "docs/usage.md"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_BODY = re.compile(r"-d '(\{.*?\})'", re.DOTALL)


def text_of(page: str) -> str:
    """Returns a page's text."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """Returns a page's fenced blocks of one language."""
    return [body for kind, body in _BLOCK.findall(text_of(page)) if kind == language]


def marked(page: str, comment: str) -> str:
    """Returns the fenced block below an HTML comment."""
    found = re.search(rf"^<!-- {re.escape(comment)} -->\n```\w+\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no block below <!-- {comment} -->"
    return found[1]


def section(page: str, heading: str) -> str:
    """Returns the text below a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text_of(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no heading '{heading}'"
    return found[1]


def rows(text: str) -> dict[str, list[str]]:
    """Returns the cells of table rows by the name in backticks that the first cell begins with."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        name = re.match(r"`([^`]+)`", cells[0]) if cells else None
        if name:
            assert name[1] not in found, f"{name[1]} stands twice"
            found[name[1]] = cells
    return found


# ---------------------------------------------------------------- options


class Documented(NamedTuple):
    """An option or a setting as the code has it."""

    name: str
    default: Any
    schema: dict[str, Any]


def fields(model: type[BaseModel]) -> Iterator[Documented]:
    """Yields a model's fields."""
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        yield Documented(name, field.get_default(call_default_factory=True), properties[name])


def own_fields(model: type[BaseModel]) -> list[Documented]:
    """Returns the fields that a model does not inherit from `CommonOptions`."""
    return [f for f in fields(model) if model is CommonOptions or f.name not in CommonOptions.model_fields]


def written(value: Any) -> str:
    """Returns a default as the tables write it."""
    if isinstance(value, bool) or value is None:
        return f"`{json.dumps(value)}`"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{value:.12g}`" if isinstance(value, int | float) else f"`{value}`" if value else "empty"


def variants(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns what a field takes besides null."""
    return [variant for variant in schema.get("anyOf", [schema]) if variant.get("type") != "null"]


def written_range(schema: dict[str, Any]) -> str:
    """Returns a number's range as the tables write it; "" for one without, and for what is no number alone."""
    only, *others = variants(schema)
    low, above, high = (only.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if others or (low is None and above is None):
        return ""
    top = "2^63 − 1" if high == 2**63 - 1 else f"{high:.12g}" if high is not None else ""
    if above is not None:
        return f"above {above:.12g}" + (f", to {top}" if top else "")
    return f"{low:.12g} to {top}" if top else f"from {low:g}"


OPTION_TABLES = {
    "Common": CommonOptions,
    "Engine `ollama`": OllamaOptions,
    "Engine `transformers`": TransformersOptions,
}
OPTIONS = [(heading, option) for heading, model in OPTION_TABLES.items() for option in own_fields(model)]


@pytest.mark.parametrize(("heading", "option"), OPTIONS, ids=[option.name for _, option in OPTIONS])
def test_every_option_stands_with_its_range_and_default(heading: str, option: Documented) -> None:
    cells = rows(section(USAGE, heading))[option.name]
    assert cells[3] == written(option.default)
    bounds = written_range(option.schema)
    assert not bounds or cells[2] == bounds
    for variant in variants(option.schema):
        assert all(f"`{value}`" in cells[2] for value in variant.get("enum", []))


@pytest.mark.parametrize("heading", OPTION_TABLES)
def test_no_option_stands_that_does_not_exist(heading: str) -> None:
    assert rows(section(USAGE, heading)).keys() == {option.name for option in own_fields(OPTION_TABLES[heading])}


# ---------------------------------------------------------------- errors


def inference_errors() -> list[type[InferenceError]]:
    """Returns `InferenceError` and every subclass of it in the error tree."""
    found = [value for value in vars(errors).values() if isinstance(value, type)]
    return [value for value in found if issubclass(value, InferenceError)]


@pytest.mark.parametrize("kind", inference_errors())
def test_every_error_stands_with_its_status_and_whether_it_is_retryable(kind: type[InferenceError]) -> None:
    error = kind("")
    cells = rows(section(USAGE, "Errors"))[error.error_type]
    assert f"`{kind.__name__}`" in cells[0]
    assert cells[1:3] == [str(status_of(error)), "yes" if error.retryable else "no"]


def test_no_error_stands_that_does_not_exist() -> None:
    assert rows(section(USAGE, "Errors")).keys() == {kind("").error_type for kind in inference_errors()}


# ---------------------------------------------------------------- settings


def settings() -> Iterator[Documented]:
    """Yields every setting under the name of its environment variable."""
    for field in fields(Settings):
        if isinstance(field.default, BaseModel):
            for inner in fields(type(field.default)):
                yield inner._replace(name=f"AIML_{field.name}__{inner.name}".upper())
        else:
            yield field._replace(name=f"AIML_{field.name}".upper())


SETTINGS = list(settings())


@pytest.mark.parametrize("setting", SETTINGS, ids=[setting.name for setting in SETTINGS])
def test_every_setting_stands_with_its_type_and_default(setting: Documented) -> None:
    cells = rows(section(USAGE, "Settings"))[setting.name]
    default = "`data` beside the code" if setting.name == "AIML_DATA_DIR" else written(setting.default)
    assert cells[2] == default
    assert written_range(setting.schema) in cells[1]
    assert all(f"`{value}`" in cells[1] for value in setting.schema.get("enum", []))


def test_no_setting_stands_that_does_not_exist() -> None:
    assert rows(section(USAGE, "Settings")).keys() == {setting.name for setting in SETTINGS}


# ---------------------------------------------------------------- examples


@pytest.mark.parametrize("page", READMES)
def test_the_curl_body_is_a_request_that_the_service_takes(page: str) -> None:
    bodies = [body for block in blocks(page, "bash") for body in _BODY.findall(block)]
    assert bodies
    for body in bodies:
        request = parse(body.encode())
        validate_options(TransformersOptions, request.get("options", {}))
        request.get("options", {}).pop("stream", None)  # the same request, its answer in pieces
        assert request == json.loads((ROOT / f"samples/requests/{request['task']}.json").read_bytes())


def test_both_readmes_show_the_same_commands_and_answer() -> None:
    for language in ("bash", "json"):
        ours, theirs = (blocks(page, language) for page in READMES)
        assert ours == theirs


EXAMPLES = [(page, number) for page in PAGES for number in range(len(blocks(page, "python")))]


@pytest.mark.parametrize(("page", "number"), EXAMPLES)
def test_python_examples_compile(page: str, number: int) -> None:
    compile(blocks(page, "python")[number], f"{page}, example {number}", "exec")


@pytest.mark.parametrize("page", PAGES)
def test_json_examples_are_json(page: str) -> None:
    for block in blocks(page, "json"):
        json.loads(block)


def test_the_documented_digest_is_the_stores() -> None:
    [formula] = blocks("docs/architecture.md", "python")
    names: dict[str, Any] = {}
    exec(formula, names)  # our own page
    files = [("b.json", "1" * 64, 2), ("a/重.bin", "0" * 64, 3)]
    assert names["content_digest"](files) == content_digest(FileEntry(*row) for row in files)


def test_the_custom_task_runs_as_it_stands(tmp_path: Path) -> None:
    script = tmp_path / "custom_task.py"
    script.write_text(marked(USAGE, f"runs: {script.name}"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment(tmp_path / "data", PYTHONPATH=str(ROOT)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == marked(USAGE, f"prints: {script.name}")


# ---------------------------------------------------------------- links


def anchors(page: str) -> set[str]:
    """Returns the anchors of a page's headings, made as GitHub makes them."""
    prose = _BLOCK.sub("", text_of(page))
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in _LINK.findall(_BLOCK.sub("", text_of(page))):
        if "://" in target:
            continue
        path, _, anchor = unquote(target).partition("#")
        aimed = (ROOT / page).parent / path if path else ROOT / page
        assert aimed.exists(), f"{page} links to {target}"
        if anchor:
            assert anchor in anchors(str(aimed.resolve().relative_to(ROOT))), f"{page} links to {target}"
