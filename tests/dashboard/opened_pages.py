"""Pages opened under AppTest, and the tables that they show."""

import re
from html import unescape
from pathlib import Path

from streamlit.testing.v1 import AppTest

FOLDER = Path(__file__).parents[2] / "dashboard"
VIEWS = sorted(path for path in (FOLDER / "views").glob("*.py") if path.name != "__init__.py")


def opened(view: str, **query: str) -> AppTest:
    app = AppTest.from_file(str(FOLDER / "views" / f"{view}.py"), default_timeout=600)
    for key, value in query.items():
        app.query_params[key] = value
    return app.run()


def sound(app: AppTest) -> AppTest:
    assert not app.exception, app.exception[0].message
    return app


def tables(app: AppTest) -> list[list[dict[str, str]]]:
    """The tables that a page shows whole: rows of heading -> cell, as a person reads them."""
    found = []
    for shown in app.get("html"):
        head, _, body = shown.proto.body.partition("</thead>")
        names = [
            unescape(name) for name in re.findall(r"<th(?: [^>]*)?>(.*?)</th>", head.replace("<wbr>", ""))
        ]
        cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]
        found.append([dict(zip(names, map(unescape, row), strict=True)) for row in cells])
    return found
