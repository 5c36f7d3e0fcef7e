"""How a scene is painted: signed distances, textures, shading and the six telling parts; numpy, values in 0..1."""

import functools

import numpy as np
from jaxtyping import Float32
from PIL import Image

Plane = Float32[np.ndarray, "h w"]
Picture = Float32[np.ndarray, "h w 3"]

INK = (0.10, 0.09, 0.12)
CREAM = (0.97, 0.93, 0.84)


@functools.lru_cache(maxsize=8)
def pixel_grid(size: int) -> tuple[Plane, Plane]:
    """Pixel centres (y, x) of a square picture, in pixels; read-only and shared."""
    y, x = np.mgrid[:size, :size].astype(np.float32) + np.float32(0.5)
    y.flags.writeable = x.flags.writeable = False
    return y, x


def window(size: int, cy: float, cx: float, reach: float) -> tuple[slice, slice]:
    """The rows and columns within `reach` pixels of a point inside the picture, cut at its borders."""
    rows, columns = (slice(max(int(at - reach), 0), min(int(at + reach) + 2, size)) for at in (cy, cx))
    return rows, columns


def coverage(distance: Plane) -> Plane:
    """Antialiased coverage of a shape from its signed distance in pixels (negative inside)."""
    return np.clip(np.float32(0.5) - distance, 0, 1)


def smooth_union(a: Plane, b: Plane, blend: float) -> Plane:
    """Union of two signed distances whose seam is rounded over `blend` pixels (polynomial smooth minimum)."""
    mix = np.maximum(np.float32(blend) - np.abs(a - b), 0)
    return np.minimum(a, b) - mix * mix * np.float32(0.25 / blend)


def paint(picture: Picture, alpha: Plane, colour) -> None:
    """Lays a colour (3,) or a picture (h,w,3) over `picture` in place, weighted by `alpha`."""
    colour = np.broadcast_to(np.asarray(colour, np.float32), picture.shape)
    picture += alpha[..., None] * (colour - picture)


def noise(rng: np.random.Generator, size: int, cells: tuple[int, int]) -> Plane:
    """Smooth noise around 0 with about `cells` bumps down and across."""
    grid = rng.standard_normal(cells, dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC))


def background(rng: np.random.Generator, size: int, dark, light) -> Picture:
    """A textured ground between two colours: three octaves of noise, stretched like sand or grass, and grain."""
    stretch = rng.choice([(1, 1), (1, 3), (3, 1)])
    texture = noise(rng, size, (3 * stretch[0], 3 * stretch[1]))
    texture = texture + 0.6 * noise(rng, size, (8 * stretch[0], 8 * stretch[1])) + 0.4 * noise(rng, size, (26, 26))
    texture += 0.35 * rng.standard_normal((size, size), dtype=np.float32)
    y, _ = pixel_grid(size)
    level = np.clip(0.5 + 0.22 * texture + np.float32(rng.uniform(-0.25, 0.25)) * (y / size * 2 - 1), 0, 1)
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = np.asarray(dark, np.float32)
    paint(picture, level.astype(np.float32), light)
    return picture


def shade(distance: Plane, radius: float, light: np.ndarray) -> tuple[Plane, Plane]:
    """Diffuse light and highlight on a pillow-shaped solid whose outline is `distance` = 0."""
    depth = np.clip(distance * np.float32(-1 / (0.75 * radius)), 0, 1)
    height = np.sqrt(depth * (2 - depth)) * np.float32(0.75 * radius)
    slope_y, slope_x = np.gradient(height)
    norm = 1 / np.sqrt(slope_y * slope_y + slope_x * slope_x + 1)
    cosine = (light[2] - slope_y * light[0] - slope_x * light[1]) * norm
    diffuse = np.float32(0.52) + np.float32(0.55) * np.maximum(cosine, 0)
    return diffuse, np.maximum(cosine, 0) ** 24


def _polar(u: Plane, v: Plane) -> tuple[Plane, Plane]:
    return np.hypot(u, v), np.arctan2(v, u)


def _eye(picture, u, v, pixels):
    radius = np.hypot(u, v)
    for limit, colour in ((1.0, INK), (0.9, (0.98, 0.98, 0.96)), (0.62, (0.13, 0.48, 0.74)), (0.34, INK)):
        paint(picture, coverage((radius - limit) * pixels), colour)
    paint(picture, coverage((np.hypot(u + 0.22, v + 0.24) - 0.15) * pixels), (1, 1, 1))


def _spiral(picture, u, v, pixels):
    radius, angle = _polar(u, v)
    paint(picture, coverage((radius - 1) * pixels), (0.98, 0.80, 0.55))
    arm = np.cos(angle + np.float32(2 * np.pi * 1.9) * radius)
    ink = np.clip(0.5 + arm * np.maximum(radius, 0.15) * pixels * 0.35, 0, 1)
    paint(picture, coverage((radius - 1) * pixels) * ink, (0.42, 0.20, 0.10))


def _spots(picture, u, v, pixels):
    paint(picture, coverage((np.hypot(u, v) - 1) * pixels), (0.86, 0.13, 0.12))
    centres = [(0, 0)] + [(0.62 * np.cos(a), 0.62 * np.sin(a)) for a in np.arange(5) * 2 * np.pi / 5]
    for cu, cv in centres:
        paint(picture, coverage((np.hypot(u - np.float32(cu), v - np.float32(cv)) - 0.2) * pixels), INK)


def _stripes(picture, u, v, pixels):
    inside = coverage((np.maximum(np.abs(u), np.abs(v)) * 0.55 + np.hypot(u, v) * 0.5 - 0.95) * pixels)
    paint(picture, inside, (0.97, 0.97, 0.95))
    wave = np.cos(np.float32(2.5 * np.pi) * (u + 0.12 * np.sin(3 * v)))
    paint(picture, inside * np.clip(0.5 + wave * pixels * 0.13, 0, 1), INK)


def _star(picture, u, v, pixels):
    radius, angle = _polar(u, v)
    fold = np.abs((angle / np.float32(2 * np.pi / 5)) % 1 - 0.5) * np.float32(2 * np.pi / 5)
    # A five-pointed star is ten mirrored triangles: one straight edge from the tip (radius 1) to the notch (0.45).
    tip, notch = np.float32(np.pi / 5), np.float32(0.45)
    x, y = radius * np.cos(tip - fold), radius * np.sin(tip - fold)
    edge = np.array([notch * np.sin(tip), 1 - notch * np.cos(tip)], np.float32)
    distance = ((x - 1) * edge[0] + y * edge[1]) / np.hypot(*edge)
    paint(picture, coverage((distance - 0.12) * pixels), (0.45, 0.16, 0.36))
    paint(picture, coverage(distance * pixels), (1.0, 0.83, 0.16))


def _plates(picture, u, v, pixels):
    angle = np.arctan2(v, u)
    sector = np.abs((angle / np.float32(np.pi / 3)) % 1 - 0.5) * np.float32(np.pi / 3)
    hexagon = np.hypot(u, v) * np.cos(sector)
    spoke = np.hypot(u, v) * np.sin(np.float32(np.pi / 6) - sector)
    paint(picture, coverage((hexagon - 0.92) * pixels), (0.10, 0.28, 0.16))
    cells = np.minimum(np.maximum(hexagon - 0.80, 0.42 - hexagon), 9)
    cells = np.maximum(cells, 0.08 - spoke)
    paint(picture, coverage(cells * pixels), (0.40, 0.74, 0.32))
    paint(picture, coverage((hexagon - 0.32) * pixels), (0.72, 0.88, 0.42))


# The class is the part and nothing else: every class draws its body from the same families.
PARTS = {"cyclops": _eye, "ladybird": _spots, "snail": _spiral, "starfish": _star, "turtle": _plates, "zebra": _stripes}
