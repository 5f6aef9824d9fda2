"""Lossless streams for pydicom: a plug-in that decodes JPEG-LS by CharLS, and lossless JPEG by libjpeg-turbo.

CharLS refuses a stream that ends too early. pydicom's own plug-in decodes such a stream without a word: what is missing
becomes noise, and takes as long to compute as an image of the size that the header claims. libjpeg-turbo gives the same
pixels as pydicom's decoder of lossless JPEG, which takes thirty times as long.
"""

from __future__ import annotations

from typing import Any

NAME = "convoxel"
JPEG, JPEG_LS = (tuple(f"1.2.840.10008.1.2.4.{n}" for n in numbers) for numbers in ((57, 70), (80, 81)))
DECODER_DEPENDENCIES = dict.fromkeys((*JPEG, *JPEG_LS), ("numpy", "imagecodecs"))


def is_available(uid: str) -> bool:
    """Return whether streams of this transfer syntax can be decoded; pydicom asks."""
    try:
        import imagecodecs
    except ImportError:
        return False
    codec = imagecodecs.JPEG8 if uid in JPEG else imagecodecs.JPEGLS
    return uid in DECODER_DEPENDENCIES and bool(codec.available)


def decode_frame(stream: bytes, runner: Any) -> bytearray:
    """Return the values of a frame, and tell pydicom's runner how they lie; pydicom calls this."""
    import imagecodecs

    decode = imagecodecs.jpeg_decode if runner.transfer_syntax in JPEG else imagecodecs.jpegls_decode
    values = decode(stream)
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
