"""`aiml infer`: one request through the service's one door."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from src.cli.failures import CommandError
from src.cli.models import registered_path
from src.cli.output import print_json, print_table, print_text, say
from src.cli.session import Session

JsonObject = dict[str, Any]

DEFAULT_TASK = "text-generation"
_MAIN_FIELDS = ("generated_text", "description", "transcription", "text", "analysis", "answer")
_NOT_FOUND = 404
_PATH = "/inference/infer"


def infer(
    session: Session,
    model: Annotated[str, typer.Option("--model", "-m", help="Name, name@alias or name@version.")],
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="The prompt; - reads it from stdin.")] = None,
    task: Annotated[str | None, typer.Option(help="Default: what the model is registered for.")] = None,
    engine: Annotated[str | None, typer.Option(help="Default: what the model is registered for.")] = None,
    data: Annotated[
        str | None, typer.Option(help="What the task takes, as a JSON object or @FILE, in place of TEXT.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", metavar="KEY=VALUE", help="An option; may be repeated.")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it comes.")] = False,
) -> None:
    """Ask a model; prints the result."""
    given = _data(text, data)
    options = dict(_option(entry) for entry in option or [])
    if task is None or engine is None:
        registered = _registered(session, model, engine)
        task = task or registered.get("task") or DEFAULT_TASK
        engine = engine or registered.get("engine")
    if engine is None:
        raise CommandError(f"'{model}' is registered for no engine: give one with --engine")
    body = {"task": task, "engine": engine, "model_name": model, "data": given, "options": options}
    streams = stream or options.get("stream") is True
    if streams:
        answer, printed = _followed(session, body)
    else:
        answer, printed = session.connection.post(_PATH, body, patient=True), False
    for warning in answer.get("warnings") or []:
        say(f"warning: {warning}", style="yellow")
    if session.as_json or not printed:
        session.show(answer, lambda envelope: print_result(envelope["result"]))


def _followed(session: Session, body: JsonObject) -> tuple[JsonObject, bool]:
    """Prints an answer as it comes, where it is not for a script; returns the whole one, and whether it printed any."""
    body = {**body, "options": {**body["options"], "stream": True}}
    answer, printed = JsonObject(), False
    try:
        for event in session.connection.events(_PATH, body):
            if "success" in event:
                answer = event
            elif not session.as_json:
                printed = True
                print_text(event["text"], end="")
    finally:
        if printed:
            print_text("")
    if answer.get("success") is not True:
        raise CommandError(answer.get("error") or "The answer broke off: ask again", answer=answer or None)
    return answer, printed


def print_result(result: JsonObject) -> None:
    """Prints the field of a result that its task is asked for; the whole of a result that has none of them."""
    if "labels" in result and "scores" in result:
        print_table(("Label", "Score"), zip(result["labels"], result["scores"], strict=False))
        return
    texts = result.get("generated_texts")
    main = next((result[name] for name in _MAIN_FIELDS if isinstance(result.get(name), str)), None)
    if texts:
        print_text("\n\n".join(texts))
    elif main is not None:
        print_text(main)
    else:
        print_json(result)


def _registered(session: Session, model: str, engine: str | None) -> JsonObject:
    """Returns what a model is registered for; nothing for one that only the given engine knows."""
    try:
        found: JsonObject = session.connection.get(registered_path(model))
    except CommandError as exc:
        if exc.status != _NOT_FOUND:
            raise
        if engine is None:
            raise CommandError(
                f"{exc.message}. A model that only its engine knows needs --engine", answer=exc.answer
            ) from exc
        return {}
    return found


def _data(text: str | None, data: str | None) -> JsonObject:
    if (text is None) == (data is None):
        raise typer.BadParameter("give the prompt (- for stdin), or --data with what the task takes")
    if data is None:
        return {"inputs": sys.stdin.read() if text == "-" else text}
    try:
        value = json.loads(Path(data[1:]).read_text(encoding="utf-8") if data.startswith("@") else data)
    except OSError as exc:
        raise typer.BadParameter(f"--data: {exc.filename} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise typer.BadParameter(f"--data is no JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise typer.BadParameter('--data must be a JSON object, such as {"inputs": "…"}')
    return value


def _option(entry: str) -> tuple[str, Any]:
    """Returns the name and the value of `key=value`; a value that is JSON (0.7, true, null, [1]) is read as such."""
    name, equals, text = entry.partition("=")
    if not equals or not name.strip():
        raise typer.BadParameter(f"--option takes key=value, not '{entry}'")
    try:
        return name.strip(), json.loads(text)
    except ValueError:
        return name.strip(), text
