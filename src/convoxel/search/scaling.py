"""A network made larger or smaller by rule: width, depth and resolution, one at a time or together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace

from convoxel.errors import ConfigError
from convoxel.models import entry, info
from convoxel.search.candidate import Candidate, measure
from convoxel.search.space import SIZE, Options, check_shape


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Factors on a network's channels, on its blocks, and on the image's size."""

    width: float = 1.0
    depth: float = 1.0
    resolution: float = 1.0

    def __post_init__(self) -> None:
        for field, value in zip(fields(self), self.factors, strict=True):
            if not 0 < value <= 1000:
                raise ConfigError(
                    f"{field.name}: got {value:g}; expected a factor above 0 and up to 1000, such as 0.5."
                )

    @property
    def factors(self) -> tuple[float, ...]:
        """Width, depth and resolution."""
        return astuple(self)


def compound(phi: float, *, depth: float = 1.2, width: float = 1.1, resolution: float = 1.15) -> Scale:
    """Return the factors of compound scaling: each is its base to the power of φ.

    Tan & Le 2019, arXiv 1905.11946, eq. 3: d = α^φ, w = β^φ, r = γ^φ with α·β²·γ² ≈ 2, so that multiply-accumulates
    grow by about 2^φ in 2-D. Their bases for EfficientNet-B0 are the defaults.

    Args:
        phi: exponent φ; 0 leaves a network as it is.
        depth: base α.
        width: base β.
        resolution: base γ.

    Raises:
        ConfigError: a base is not above 0.

    >>> [round(factor, 3) for factor in compound(2).factors]
    [1.21, 1.44, 1.322]
    """
    if min(depth, width, resolution) <= 0:
        raise ConfigError(f"compound: bases are {depth}, {width} and {resolution}; expected numbers above 0.")
    try:
        return Scale(width=width**phi, depth=depth**phi, resolution=resolution**phi)
    except OverflowError:
        raise ConfigError(f"compound: phi is {phi}, with which the factors are beyond all numbers.") from None


def list_scales(
    *,
    width: Sequence[float] = (),
    depth: Sequence[float] = (),
    resolution: Sequence[float] = (),
    phi: Sequence[float] = (),
    fixed_size: bool = False,
) -> list[Scale]:
    """Return scales by one factor at a time, and compound scales, each once; a usual row of widths without any.

    Args:
        width, depth, resolution: factors.
        phi: exponents of :func:`compound`.
        fixed_size: whether images keep their size, so that compound scales leave the resolution at 1.

    Raises:
        ConfigError: a factor is not above 0 or is beyond 1000.

    >>> list_scales(width=(0.5,), phi=(0, 0))
    [Scale(width=0.5, depth=1.0, resolution=1.0), Scale(width=1.0, depth=1.0, resolution=1.0)]
    """
    found = [Scale(width=value) for value in width]
    found += [Scale(depth=value) for value in depth]
    found += [Scale(resolution=value) for value in resolution]
    together = map(compound, phi)
    found += [replace(scale, resolution=1.0) if fixed_size else scale for scale in together]
    return list(dict.fromkeys(found)) or [Scale(width=value) for value in (0.25, 0.5, 1.0)]


def scales(
    network: str, shape: Sequence[int] | None = None, factors: Sequence[Scale] = (), *, fixed: Options | None = None
) -> list[Candidate]:
    """Return a network with its costs at each scale.

    Args:
        network: a name of ``convoxel.models.names()``.
        shape: input (n, channels, *spatial) at resolution 1 (default: a usual one).
        factors: the scales. Channels of U-Nets, whose width is a count, are rounded; so are sizes, to those that the
            network takes.
        fixed: options of the network at every scale.

    Raises:
        ConfigError: there is no scale, or the network has no option for one of the factors.

    >>> [row.params for row in scales("mobilenet_v1", factors=[Scale(width=width) for width in (0.25, 0.5, 1.0)])]
    [470072, 1331592, 4231976]
    """
    if not factors:
        raise ConfigError("factors: got none; expected at least one scale, such as Scale(width=0.5).")
    sizes = (1, *info(network).shape) if shape is None else check_shape(shape)
    return [measure(network, sizes, scaled_options(network, factor, sizes), fixed) for factor in factors]


def scaled_options(network: str, factor: Scale, shape: Sequence[int]) -> dict[str, int | float]:
    """Return the options of ``network`` that a scale stands for; those that stay at 1 are left out.

    >>> scaled_options("unet", Scale(width=0.5, resolution=1.5), (1, 1, 64, 64))
    {'width': 16, 'size': 96}
    """
    known = entry(network).options
    found: dict[str, int | float] = {}
    for name in ("width", "depth"):
        value = round(getattr(factor, name), 6)
        if value == 1.0:
            continue
        if name not in known:
            raise ConfigError(f"{name}: {network} has no option for it; it has {', '.join(known)}. Scale another.")
        default = known[name]
        found[name] = max(1, round(default * value)) if isinstance(default, int) else value
    if factor.resolution != 1.0:
        if len(set(shape[2:])) > 1:
            raise ConfigError(f"shape: sizes {tuple(shape[2:])} differ; expected one size to scale along all axes.")
        size = shape[2] * factor.resolution
        # A multiple of 16 suits every U-Net of up to four levels; other networks take any size.
        found[SIZE] = max(16, round(size / 16) * 16) if "levels" in known else max(1, round(size))
    return found
