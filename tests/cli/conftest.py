"""The small scenario as a file."""

from pathlib import Path

import pytest
from told import GOOD


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(GOOD)
    return path
