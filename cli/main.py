"""The command line as a whole: its commands, its version, and how errors end it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from cli.demo.command import demo
from cli.doctor_command import doctor
from cli.errors import FAULT, INTERRUPTED, USAGE, Failure, explain
from cli.fetch_command import fetch
from cli.help_text import Command, Group
from cli.identity_command import identity
from cli.node_command import node
from cli.output import print_json
from cli.personal_command import personal
from cli.plan_commands import plan_app
from cli.predict_command import predict
from cli.publish_command import publish
from cli.receipts_command import receipts
from cli.run_commands import runs, watch
from cli.signal_command import signal

__all__ = ["app", "main"]


class Commands(Group):
    """Ends every command with one line and an exit code of `cli.errors`, wherever `--debug` and `--json` stand."""

    def main(self, args: Sequence[str] | None = None, **options: Any) -> Any:  # type: ignore[override]
        """Run one command line and exit."""
        given = list(sys.argv[1:] if args is None else args)
        debug, as_json = "--debug" in given, "--json" in given
        options["standalone_mode"] = False
        try:
            result = super().main(args=[word for word in given if word != "--debug"], **options)
        except typer.Abort:
            sys.exit(INTERRUPTED)
        except Exception as error:  # noqa: BLE001 (the last stop of every error: it is told, never swallowed)
            sys.exit(_report(error, as_json=as_json, debug=debug))
        sys.exit(result if isinstance(result, int) else 0)


def _report(error: Exception, *, as_json: bool, debug: bool) -> int:
    failure = _usage(error) or explain(error)
    if failure is None or debug:
        traceback.print_exception(error)
    if failure is None:
        failure = Failure(code="fault", message=f"{type(error).__name__}: {error}", exit_status=FAULT)
    if as_json:
        print_json({"error": {"code": failure.code, "message": failure.message}})
    print(f"error: {failure.message}", file=sys.stderr)  # noqa: T201 (the one line of an error)
    return failure.exit_status


def _usage(error: Exception) -> Failure | None:
    """Errors of typer's parser; they come from click or from the copy of it in newer versions of typer."""
    describe = getattr(error, "format_message", None)
    if describe is None:
        return None
    message = str(describe()) or "a command is missing"  # it was answered with the help
    context = getattr(error, "ctx", None)
    if context is not None and "Usage:" not in message:
        message += f" (see: {context.command_path} --help)"
    return Failure(code="usage", message=message, exit_status=USAGE)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 (typer's callback)
    if wanted:
        try:
            print(f"peerplan {version('peerplan')}")  # noqa: T201 (a command's output)
        except PackageNotFoundError:
            print("peerplan (not installed)")  # noqa: T201 (a command's output)
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    name="peerplan",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train, evaluate and query models on data that stays where it is.",
    epilog="Exit codes: 0 done · 2 usage · 3 refused or invalid · 4 unreachable · 5 run failed or stopped · "
    "130 interrupted. [bold]--debug[/bold], anywhere, shows where an error came from.",
)


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train, evaluate and query models on data that stays where it is."""


app.command("demo", cls=Command, rich_help_panel="Begin")(demo)
app.command("signal", cls=Command, rich_help_panel="Serve")(signal)
app.command("node", cls=Command, rich_help_panel="Serve")(node)
app.command("receipts", cls=Command, rich_help_panel="Serve")(receipts)
app.add_typer(plan_app, name="plan", rich_help_panel="Author")
app.command("publish", cls=Command, rich_help_panel="Author")(publish)
app.command("runs", cls=Command, rich_help_panel="Author")(runs)
app.command("watch", cls=Command, rich_help_panel="Author")(watch)
app.command("fetch", cls=Command, rich_help_panel="Author")(fetch)
app.command("predict", cls=Command, rich_help_panel="Use")(predict)
app.command("personal", cls=Command, rich_help_panel="Use")(personal)
app.command("identity", cls=Command, rich_help_panel="Use")(identity)
app.command("doctor", cls=Command, rich_help_panel="Use")(doctor)


def main() -> None:
    """Run the command line of this process."""
    app()


if __name__ == "__main__":
    main()
