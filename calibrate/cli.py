"""`tokenworks calibrate`: measure kernels here, import foreign tables, fit, show the error, compare profiles."""

import importlib.util

import typer

from calibrate.diff_command import diff
from calibrate.fit_command import fit
from calibrate.import_command import import_tables
from calibrate.show_command import show

app = typer.Typer(no_args_is_help=True, help="Measure kernels, import tables, fit, show the error, compare.")
app.command("import")(import_tables)
app.command()(fit)
app.command()(show)
app.command()(diff)

if importlib.util.find_spec("calibrate.run_command"):
    from calibrate.run_command import run

    app.command()(run)
