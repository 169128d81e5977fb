"""Image files to uint8 arrays by Pillow, in threads, the same whatever their number."""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nm_ode.arguments import as_count, first_line
from nm_ode.data.base import DataError
from nm_ode.data.images.listing import Listing
from nm_ode.memory import require_memory

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of images that are decoded, and of all."""

Pixels: TypeAlias = NDArray[np.uint8]

CHANNELS = 3
_PIECE = 2**20  # bytes of pixels that a thread makes at once
_SCAN, _END = b"\xff\xda", b"\xff\xd9"  # markers of JPEG, which its pixels never contain
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


@dataclass(frozen=True)
class Size:
    """Of all images: `side` × `side`.

    Attributes:
        resize: an image of another size is scaled to it and cut; else it is an error.
    """

    side: int
    resize: bool


@dataclass(frozen=True)
class Piece:
    """Some images, one after another.

    Attributes:
        pixels: (n, 3, side, side).
        sums, squares: of each channel's pixels.
        digest: SHA-256 of the pixels.
    """

    pixels: Pixels
    sums: NDArray[np.int64]
    squares: NDArray[np.int64]
    digest: str


@dataclass
class Decoded:
    """All images of a listing: pixels (n, 3, side, side), and sums over them as a `Piece` has."""

    pixels: Pixels
    sums: NDArray[np.int64]
    squares: NDArray[np.int64]

    def add(self, piece: Piece) -> None:
        """The sums of one piece more."""
        self.sums += piece.sums
        self.squares += piece.squares


def pillow() -> ModuleType:
    """The module PIL.Image.

    Raises:
        DataError: Pillow is not installed.
    """
    try:
        import PIL.Image
    except ImportError:
        raise DataError("reading image files needs Pillow: pip install 'nm-ode[images]'") from None
    return PIL.Image


def decoder() -> str:
    """Which program decodes, with versions: another may give other pixels."""
    pillow()
    from PIL import __version__, features

    return f"Pillow {__version__}, libjpeg {features.version('libjpeg_turbo') or features.version('jpg')}"


def size_of(listing: Listing, side: int | None) -> Size:
    """The size asked for, or that of the first image.

    Raises:
        DataError: no size is asked for and the first image is not square.
    """
    if side is not None:
        return Size(as_count(side, "side", error=DataError), resize=True)
    path = listing.path(0)
    with _opened(path) as image:
        width, height = image.size
    if width != height:
        raise DataError(
            f"{path} has {width}×{height} pixels, and networks here take squares: give `side`, to which images are "
            "scaled and cut"
        )
    return Size(width, resize=False)


def rows_of_a_piece(side: int) -> int:
    """How many images are decoded at once: a number that depends on their size alone."""
    return max(1, _PIECE // (CHANNELS * side * side))


def decoded(
    listing: Listing, size: Size, *, workers: int | None = None, progress: Progress | None = None
) -> Generator[Piece, None, None]:
    """All images of a listing in its order, a piece at a time.

    Args:
        workers: threads; as many as there are cores if None.

    Raises:
        DataError: a file that cannot be decoded as a whole, or has another size.
    """
    pillow()
    _refuse_cut_off_images()
    rows, total = rows_of_a_piece(size.side), len(listing)
    most = threads(workers)
    with ThreadPoolExecutor(most, thread_name_prefix="decode") as pool:
        waiting: deque[Future[Piece]] = deque()
        starts, done = iter(range(0, total, rows)), 0
        try:
            while done < total:
                for start in islice(starts, 2 * most - len(waiting)):
                    which = range(start, min(start + rows, total))
                    waiting.append(pool.submit(_piece, listing, which, size))
                piece = waiting.popleft().result()
                done += len(piece.pixels)
                yield piece
                if progress is not None:
                    progress(done, total)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def in_memory(listing: Listing, size: Size, pieces: Iterable[Piece]) -> Decoded:
    """All pieces in one array."""
    shape = (len(listing), CHANNELS, size.side, size.side)
    require_memory(math.prod(shape), f"the images of {listing.folder}", "give a folder for them with `cache`")
    pixels = np.empty(shape, np.uint8)
    found = Decoded(pixels, np.zeros(CHANNELS, np.int64), np.zeros(CHANNELS, np.int64))
    done = 0
    for piece in pieces:
        pixels[done : done + len(piece.pixels)] = piece.pixels
        found.add(piece)
        done += len(piece.pixels)
    return found


def decode(path: Path, size: Size, length: int | None = None) -> Pixels:
    """One file: (3, side, side), grey levels as three equal channels.

    As torchvision's ImageFolder with `Resize(side)` and `CenterCrop(side)` reads it: no rotation by EXIF, no
    colour profile, transparency dropped.

    Args:
        length: of the file, if it was listed with one.

    Raises:
        DataError: it cannot be decoded as a whole, has more than 8 bits a channel, or has another size.
    """
    with _opened(path, length) as image:
        if image.mode not in _EIGHT_BITS:
            raise DataError(
                f"{path} has pixels of the kind {image.mode!r}, which do not fit into 8 bits: convert it to RGB"
            )
        if not size.resize and image.size != (size.side, size.side):
            width, height = image.size
            raise DataError(
                f"{path} has {width}×{height} pixels where others have {size.side}×{size.side}: give `side`, to which "
                "images are scaled and cut"
            )
        try:
            image = image.convert("RGB")
        except Exception as error:
            raise _unreadable(path, first_line(error)) from None
        if image.size != (size.side, size.side):
            image = _scaled(image, size.side)
        return np.asarray(image).transpose(2, 0, 1)


def moments(pixels: Pixels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums and sums of squares of each channel."""
    wide = pixels.astype(np.uint16)  # 255² < 2¹⁶
    sums = wide.sum(axis=(0, 2, 3), dtype=np.int64)
    return sums, np.square(wide, out=wide).sum(axis=(0, 2, 3), dtype=np.int64)


def _piece(listing: Listing, which: range, size: Size) -> Piece:
    pixels = np.empty((len(which), CHANNELS, size.side, size.side), np.uint8)
    for row, index in enumerate(which):
        pixels[row] = decode(listing.path(index), size, listing.files[index].size)
    return Piece(pixels, *moments(pixels), hashlib.sha256(pixels.data).hexdigest())


def _scaled(image: Any, side: int) -> Any:
    """The shorter edge scaled to `side`, the middle cut out, with torchvision's roundings."""
    width, height = image.size
    shorter = min(width, height)
    new = (side, int(side * height / width)) if shorter == width else (int(side * width / height), side)
    scaled = image.resize(new, pillow().Resampling.BILINEAR) if new != image.size else image
    left, top = round((new[0] - side) / 2.0), round((new[1] - side) / 2.0)
    return scaled.crop((left, top, left + side, top + side))


def _opened(path: Path, length: int | None = None) -> Any:
    library = pillow()
    try:
        content = path.read_bytes()
        if length not in (None, len(content)):
            raise DataError(f"{path} has changed while the images were read: read them again")
        image = library.open(io.BytesIO(content))
    except FileNotFoundError:
        raise DataError(f"{path} was there when the folder was listed, and is not now") from None
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except DataError:
        raise
    except Exception as error:  # Pillow raises whatever its plugins raise
        raise _unreadable(path, first_line(error)) from None
    if image.format in ("JPEG", "MPO") and content.rfind(_END) < content.rfind(_SCAN):
        # Pillow sees that a file is too short, but fills what was never written with something.
        raise _unreadable(path, "truncated: it has no end marker")
    return image


def _unreadable(path: Path, reason: str) -> DataError:
    if "cannot identify" in reason:
        reason = "Pillow knows no such kind of file"
    return DataError(f"{path} is cut off or no image ({reason}): unpack or download the data again")


def _refuse_cut_off_images() -> None:
    from PIL import ImageFile

    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set, with which Pillow fills the missing part of a damaged image "
            "with grey: set it to False"
        )


def threads(workers: int | None) -> int:
    """As many as asked for, or as there are cores.

    Raises:
        DataError: no number of threads.
    """
    if workers is not None:
        return as_count(workers, "workers", error=DataError)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1
