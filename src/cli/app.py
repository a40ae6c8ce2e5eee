"""The commands of `aiml`, put together."""

import typer

from src.cli import datasets, jobs, models
from src.cli.inference import infer
from src.cli.mlflow_ui import mlflow
from src.cli.serving import serve
from src.cli.session import command, remember

app = typer.Typer(
    name="aiml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="One door for every task; every answer names the version that produced it.",
)
app.callback()(remember)
command(app, "infer")(infer)
app.add_typer(models.group, name="models")
app.add_typer(datasets.group, name="datasets")
app.add_typer(jobs.group, name="jobs")
app.command("serve")(serve)
app.command("mlflow")(mlflow)
