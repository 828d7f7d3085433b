"""`tokenworks calibrate`: measure kernels here, import foreign tables, fit, show the error."""

import importlib.util

import typer

from calibrate.fit_command import fit
from calibrate.import_command import import_tables
from calibrate.show_command import show

app = typer.Typer(no_args_is_help=True, help="Measure kernels, import foreign tables, fit, show the error.")
app.command("import")(import_tables)
app.command()(fit)
app.command()(show)

if importlib.util.find_spec("calibrate.run_command"):
    from calibrate.run_command import run

    app.command()(run)
