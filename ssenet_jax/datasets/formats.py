"""Which files are photos, and how many pixels one may have; both are known before anything is decoded."""

import functools
import io
import warnings

from PIL import Image, ImageFile, UnidentifiedImageError

# by name, because Pillow has readers that nobody tests here, and one that starts Ghostscript
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".heic", ".heif")
MOST_PIXELS = 128_000_000

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_VIDEO_STARTS = (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"FLV\x01")
_VIDEO_BOXES = (b"ftyp", b"moov", b"mdat", b"wide")

# Pillow warns of large images; MOST_PIXELS is the limit here
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def open_photo(data: bytes) -> ImageFile.ImageFile:
    """Reads the header of a photo or mask; of an animation the first frame.

    Raises:
        ValueError: the bytes are in no format that is read, or have too many pixels.
    """
    most = MOST_PIXELS // 10**6
    try:
        image = Image.open(io.BytesIO(data), formats=("HEIF",) if _is_heif(data) else FORMATS)
    except UnidentifiedImageError:
        raise ValueError(_unreadable(data)) from None
    except Image.DecompressionBombError:  # of more than Pillow opens, whose limit is above this one
        raise ValueError(f"its pixels are more than the {most} million that are read") from None
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"its {image.width} x {image.height} pixels are more than the {most} million that are read")
    return image


def _is_heif(data: bytes) -> bool:
    if data[4:8] != b"ftyp" or data[8:12] not in _HEIF_BRANDS:
        return False
    _add_heif()
    return True


@functools.cache
def _add_heif() -> None:
    try:
        import pillow_heif
    except ImportError:
        raise ValueError("it is a HEIC photo, which takes a package to read: pip install pillow-heif") from None
    pillow_heif.register_heif_opener()


def _unreadable(data: bytes) -> str:
    is_video = data.startswith(_VIDEO_STARTS) or data[:4] == b"RIFF" and data[8:12] == b"AVI "
    if is_video or data[4:8] in _VIDEO_BOXES and data[8:12] != b"avif":
        return "it is a video, and only photos are read; save the frames that you want as photos"
    return "it is no whole JPEG, PNG, WebP, TIFF, BMP, GIF or HEIC"
