"""Units of length as image formats write them."""

from __future__ import annotations

_IN_MM = {
    "m": 1e3,
    "dm": 1e2,
    "cm": 10.0,
    "mm": 1.0,
    "um": 1e-3,
    "nm": 1e-6,
    "pm": 1e-9,
    "angstrom": 1e-7,
    "inch": 25.4,
}
_NAMES = {
    "meter": "m", "metre": "m", "decimeter": "dm", "centimeter": "cm", "centimetre": "cm", "millimeter": "mm",
    "millimetre": "mm", "micrometer": "um", "micrometre": "um", "micron": "um", "microns": "um", "nanometer": "nm",
    "nanometre": "nm", "picometer": "pm", "in": "inch", "Å": "angstrom", "å": "angstrom",
}  # fmt: skip


def unit_in_mm(unit: str) -> float | None:
    """Return how many millimetres a unit of length has, None for what is no length (such as "pixel").

    >>> unit_in_mm("µm"), unit_in_mm("micrometer"), unit_in_mm("\\\\u00B5m"), unit_in_mm("pixel")
    (0.001, 0.001, 0.001, None)
    """
    name = unit.strip().replace("\\u00B5", "u").replace("µ", "u").replace("μ", "u")
    name = _NAMES.get(name, _NAMES.get(name.lower(), name))
    return _IN_MM.get(name)
