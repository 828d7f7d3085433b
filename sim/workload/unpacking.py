"""The bytes of a file of rows, plain or packed as .gz or .xz: piece by piece, no further than asked.

A small packed file may hold a large one, so what is unpacked is counted while it is.
"""

import gzip
import lzma
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from sim.files import open_regular

MOST_BYTES: Final = 2**28
"""Of the text of a file, unpacked."""
MOST_UNPACKED: Final = 100
"""Times its own size that a packed file may hold; traces hold four to thirty times."""
SMALL_BYTES: Final = 2**20
"""That any packed file may hold."""
XZ_MEMORY_BYTES: Final = 2**28
"""That unpacking may take: a file may ask for 4 GB."""
PIECE_BYTES: Final = 2**16


def text_of(path: Path, most_lines: float) -> tuple[bytes, bool]:
    """What a file holds, and whether that is all: after `most_lines` lines it is read no further.

    Raises OSError, EOFError, lzma.LZMAError, zlib.error or ValueError where it cannot be unpacked, or holds too much.
    """
    parts: list[bytes] = []
    held = lines = 0
    with open_regular(path) as file:
        packed_bytes, most = os.fstat(file.fileno()).st_size, MOST_BYTES
        if path.suffix in (".gz", ".xz"):
            most = min(most, max(MOST_UNPACKED * packed_bytes, SMALL_BYTES))
        for piece in _pieces(file, path.suffix):
            if lines > most_lines:
                content = b"".join(parts)
                return content[: content.rfind(b"\n") + 1], False
            parts.append(piece)
            held += len(piece)
            lines += piece.count(b"\n")
            if held > MOST_BYTES:
                raise ValueError(f"holds more than {MOST_BYTES:,} bytes")
            if held > most:
                raise ValueError(
                    f"{packed_bytes:,} bytes that hold more than {most:,}; no table packs so well"
                )
    return b"".join(parts), True


def _pieces(file: BinaryIO, suffix: str) -> Iterator[bytes]:
    """The content of a file of that suffix."""
    if suffix == ".gz":
        with gzip.GzipFile(fileobj=file) as packed:
            yield from iter(lambda: packed.read(PIECE_BYTES), b"")
    elif suffix == ".xz":
        yield from _from_xz(file)
    else:
        yield from iter(lambda: file.read(PIECE_BYTES), b"")


def _from_xz(file: BinaryIO) -> Iterator[bytes]:
    """What the streams of an .xz file hold, one after the other; zeros may stand between them."""
    raw = file.read(PIECE_BYTES)
    while raw:
        stream = lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)
        while not stream.eof:
            if stream.needs_input and not raw and not (raw := file.read(PIECE_BYTES)):
                raise EOFError("the file is cut off")
            piece, raw = stream.decompress(raw, PIECE_BYTES), b""
            if piece:
                yield piece
        raw = stream.unused_data.lstrip(b"\0")
        while not raw and (more := file.read(PIECE_BYTES)):
            raw = more.lstrip(b"\0")
