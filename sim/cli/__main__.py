"""`python -m sim.cli`: the command, where the script is not on the path."""

from sim.cli import main

main()
