"""JPEG-LS for pydicom: a plug-in that decodes by CharLS, which refuses a stream that ends too early.

pydicom's own plug-in decodes such a stream without a word: what is missing becomes noise, and takes as long to compute
as an image of the size that the header claims.
"""

from __future__ import annotations

from typing import Any

NAME = "convoxel"
DECODER_DEPENDENCIES = {f"1.2.840.10008.1.2.4.{n}": ("numpy", "imagecodecs") for n in (80, 81)}


def is_available(uid: str) -> bool:
    """Return whether streams of this transfer syntax can be decoded; pydicom asks."""
    try:
        import imagecodecs
    except ImportError:
        return False
    return uid in DECODER_DEPENDENCIES and bool(imagecodecs.JPEGLS.available)


def decode_frame(stream: bytes, runner: Any) -> bytearray:
    """Return the values of a frame, and tell pydicom's runner how they lie; pydicom calls this."""
    import imagecodecs

    values = imagecodecs.jpegls_decode(stream)
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", 8 * values.itemsize)
    return bytearray(values)


def add_decoder() -> None:
    """Make the plug-in known to pydicom; once is enough."""
    from pydicom.pixels.decoders.base import get_decoder

    for syntax in DECODER_DEPENDENCIES:
        decoder = get_decoder(syntax)
        if NAME not in decoder.available_plugins:
            decoder.add_plugin(NAME, (__name__, decode_frame.__name__))
