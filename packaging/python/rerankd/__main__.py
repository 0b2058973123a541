"""Runs the rerankd program that was installed with this package, with the same arguments."""

import os
import sys
from importlib.metadata import files
from pathlib import Path


def program():
    """The program's path: where the installation's list of files has it, or in `pip install --target`'s bin."""
    listed = [file.locate() for file in files("rerankd") or [] if file.name == "rerankd" and file.parent.name == "bin"]
    places = [Path(place) for place in [*listed, Path(__file__).parents[1] / "bin" / "rerankd"]]
    for place in places:
        if place.is_file():
            return place.resolve()
    sys.exit(f"rerankd: the program is in none of {', '.join(map(str, places))}; install the package rerankd again")


if __name__ == "__main__":
    os.execv(program(), ["rerankd", *sys.argv[1:]])
