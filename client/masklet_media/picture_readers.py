"""Pillow's readers of pictures, imported at once.

Pillow imports a reader when it first needs it. A decoding process that has confined itself can import nothing.
"""

from __future__ import annotations

from PIL import AvifImagePlugin, BmpImagePlugin, GifImagePlugin, JpegImagePlugin, MpoImagePlugin  # isort: skip
from PIL import PngImagePlugin, TiffImagePlugin, WebPImagePlugin  # isort: skip
from PIL import Image

READERS = (
    AvifImagePlugin, BmpImagePlugin, GifImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin,
    WebPImagePlugin,
)  # fmt: skip
"""The modules of the formats that servers read."""

Image.preinit()
