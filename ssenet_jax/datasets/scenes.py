"""The embedded data set: storybook creatures drawn from (seed, split, index), no file needed.

Every creature has a large plain body, of a shape and colour that any class may have, and a small part that alone
tells its class. A classifier finds the part; a mask needs the body (METHOD: the scenes).
"""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Float32, UInt8

from ssenet_jax.datasets import scene_art as art
from ssenet_jax.datasets.fingerprints import fingerprint
from ssenet_jax.datasets.records import Record, multi_hot

CLASS_NAMES = tuple(art.PARTS)
SPLITS = ("train", "test")
MIN_SIZE = 32
REMEMBERED, REMEMBERED_SIZE = 2048, 96  # the latest scenes of at most this size are kept: 75 MB

GROUNDS = (  # dark and light ends of each ground's texture
    ((0.16, 0.24, 0.13), (0.44, 0.52, 0.26)),
    ((0.46, 0.38, 0.27), (0.74, 0.66, 0.50)),
    ((0.15, 0.22, 0.30), (0.40, 0.50, 0.56)),
    ((0.24, 0.20, 0.20), (0.50, 0.43, 0.38)),
    ((0.12, 0.30, 0.30), (0.34, 0.56, 0.52)),
)
BODIES = (
    (0.93, 0.52, 0.42),
    (0.95, 0.75, 0.36),
    (0.62, 0.55, 0.86),
    (0.50, 0.76, 0.89),
    (0.95, 0.68, 0.76),
    (0.93, 0.88, 0.72),
)
PART_COLOURS = (
    (0.10, 0.09, 0.12),
    (0.97, 0.97, 0.95),
    (0.13, 0.48, 0.74),
    (0.86, 0.13, 0.12),
    (0.98, 0.80, 0.55),
    (0.42, 0.20, 0.10),
    (1.00, 0.83, 0.16),
    (0.40, 0.74, 0.32),
)


@dataclasses.dataclass
class _Creature:
    """One object: its class, outline and telling part; distances in pixels, angles in radians."""

    label: int
    radius: float
    distance: Float32[np.ndarray, "h w"]
    centre: tuple[float, float]
    part_centre: tuple[float, float]
    part_radius: float
    part_angle: float

    @property
    def inside(self):
        return self.distance < 0

    def inside_part(self, y, x):
        return np.hypot(y - self.part_centre[0], x - self.part_centre[1]) < self.part_radius


def open_split(data_config, split: str, *, check_files: bool) -> "Scenes":
    """The scenes of a split; there is no file to check."""
    scenes = data_config.scenes
    count = scenes.num_train if split == "train" else scenes.num_test
    return Scenes(split, seed=scenes.seed, count=count, size=scenes.size)


class Scenes:
    """The drawn scenes of one split.

    Args:
        split: "train" or "test"; the two never share a scene.
        seed: any non-negative integer; another seed is another data set.
        count: number of scenes.
        size: height and width in pixels, at least 32.

    Raises:
        ValueError: an unknown split, a size below 32, or a count below 1.
    """

    class_names = CLASS_NAMES
    has_masks = True

    def __init__(self, split: str, *, seed: int, count: int, size: int):
        if split not in SPLITS:
            raise ValueError(f"scenes has no split {split!r}; it has {', '.join(SPLITS)}")
        if size < MIN_SIZE or count < 1 or seed < 0:
            raise ValueError(
                f"scenes of size {size}, count {count}, seed {seed} cannot be drawn;"
                f" size must be at least {MIN_SIZE}, count at least 1 and seed not negative"
            )
        self._split, self._seed, self._size = split, seed, size
        self.ids = [f"{split}_{index:05d}" for index in range(count)]
        self.photos: list[str] = []
        self.identity = {"name": "scenes", "classes": list(CLASS_NAMES), "seed": seed, "size": size}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        draw = _remembered if self._size <= REMEMBERED_SIZE else _draw_numbered
        image, mask = draw(self._seed, SPLITS.index(self._split), range(len(self.ids))[index], self._size)
        labels = multi_hot(np.setdiff1d(mask, [0]).astype(int) - 1, len(CLASS_NAMES))
        return {"id": self.ids[index], "image": image, "size": mask.shape, "labels": labels, "mask": mask}

    def fingerprints(self) -> dict[str, str]:
        return {image_id: fingerprint(self._seed, self._size, image_id) for image_id in self.ids}

    def mask_fingerprints(self) -> dict[str, str]:
        return self.fingerprints()  # drawn together


def _draw_numbered(seed: int, split: int, index: int, size: int):
    image, mask = draw_scene(np.random.default_rng((seed, split, index)), size)
    image.flags.writeable = mask.flags.writeable = False
    return image, mask


# drawing takes half as long as a training step on the scene, which every epoch and stage needs again
_remembered = functools.lru_cache(REMEMBERED)(_draw_numbered)


def draw_scene(rng: np.random.Generator, size: int) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Draws one scene.

    Args:
        rng: decides everything in the scene.
        size: height and width in pixels.

    Returns:
        The image, and its mask: 0 background, 1.. the classes in the order of CLASS_NAMES.
    """
    light = np.array([-1.0, rng.uniform(-0.9, 0.9), 1.1], np.float32)
    light /= np.linalg.norm(light)
    dark, bright = GROUNDS[rng.integers(len(GROUNDS))]
    picture = art.background(rng, size, dark, bright)
    for _ in range(rng.integers(3, 8)):
        _draw_distractor(rng, picture, light)
    mask = np.zeros((size, size), np.uint8)
    for creature in _arrange(rng, size):
        _draw_creature(rng, picture, creature, light)
        mask[creature.inside] = creature.label + 1
    _draw_grass(rng, picture, mask, dark, bright)
    picture += 0.012 * rng.standard_normal(picture.shape, dtype=np.float32)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8), mask


def _arrange(rng, size: int) -> list[_Creature]:
    """One to three creatures, the farthest first, none hidden so far that its part or most of its body is lost."""
    count = rng.choice(3, p=(0.45, 0.35, 0.2)) + 1
    largest = (0.46, 0.34, 0.27)[count - 1]
    y, x = art.pixel_grid(size)
    placed: list[_Creature] = []
    for _ in range(12 * count):
        radius = size * math.exp(rng.uniform(math.log(0.17), math.log(largest)))
        new = _sample_creature(rng, size, radius)
        if all(_stays_visible(old, new, y, x) for old in placed):
            placed.append(new)
        if len(placed) == count:
            break
    return placed


def _stays_visible(old: _Creature, new: _Creature, y, x) -> bool:
    hidden = new.inside
    part = old.inside_part(y, x)
    return (hidden & old.inside).sum() < 0.3 * old.inside.sum() and (hidden & part).sum() < 0.15 * part.sum()


def _sample_creature(rng, size: int, radius: float) -> _Creature:
    """A body of one of the shared families, and the place of its part; the part lies inside the picture."""
    margin = 0.75 * radius
    cy, cx = rng.uniform(margin, size - margin, 2) if margin < size / 2 else (size / 2, size / 2)
    part_radius = radius * rng.uniform(0.36, 0.44)
    turn, offset = rng.uniform(0, 2 * math.pi), radius * rng.uniform(0.1, 0.32)
    part = np.clip((cy + offset * math.sin(turn), cx + offset * math.cos(turn)), part_radius, size - part_radius)
    return _Creature(
        label=int(rng.integers(len(CLASS_NAMES))),
        radius=radius,
        distance=_body_distance(rng, size, radius, cy, cx),
        centre=(cy, cx),
        part_centre=(float(part[0]), float(part[1])),
        part_radius=part_radius,
        part_angle=rng.uniform(0, 2 * math.pi),
    )


def _body_distance(rng, size: int, radius: float, cy: float, cx: float):
    """Signed distance of a wavy superellipse with up to four limbs, in pixels."""
    y, x = art.pixel_grid(size)
    squash = rng.uniform(0.82, 1.0)
    across, along = _rotate(y - np.float32(cy), x - np.float32(cx), rng.uniform(0, 2 * math.pi))
    power = np.float32(rng.uniform(2.0, 2.8))
    a, b = np.float32(radius / squash), np.float32(radius * squash)
    reach = (np.abs(across / a) ** power + np.abs(along / b) ** power) ** (1 / power)
    bearing = np.arctan2(along, across)
    wave = 1 + 0.05 * np.cos(3 * bearing + rng.uniform(0, 6)) + 0.05 * np.cos(2 * bearing + rng.uniform(0, 6))
    distance = ((reach - wave) * b).astype(np.float32)
    for limb in rng.uniform(0, 2 * math.pi, rng.integers(0, 5)).astype(np.float32):
        bulb = np.float32(radius * rng.uniform(0.14, 0.26))
        foot = np.hypot(across - a * np.cos(limb), along - b * np.sin(limb)) - bulb
        distance = art.smooth_union(distance, foot, 0.25 * radius)
    return distance


def _rotate(dy, dx, angle: float):
    """Coordinates across and along an axis turned by `angle`."""
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return cos * dx + sin * dy, cos * dy - sin * dx


def _draw_creature(rng, picture, creature: _Creature, light) -> None:
    shift = creature.radius * light / light[2]
    around = art.window(len(picture), *creature.centre, 1.75 * creature.radius)
    y, x = (axis[around] for axis in art.pixel_grid(len(picture)))
    fall = np.hypot(y - creature.centre[0] + 0.45 * shift[0], x - creature.centre[1] + 0.45 * shift[1])
    shadow = 0.55 * np.exp(-((fall / creature.radius) ** 4) * 0.55)
    art.paint(picture[around], shadow.astype(np.float32), (0.04, 0.04, 0.08))
    distance = creature.distance[around]
    base = np.asarray(BODIES[rng.integers(len(BODIES))], np.float32) + np.float32(rng.uniform(-0.06, 0.06, 3))
    surface = (1 + 0.05 * art.noise(rng, len(picture), (9, 9))[around])[..., None] * base
    _draw_part(surface, creature, y, x)
    diffuse, highlight = art.shade(distance, creature.radius, light)
    surface = surface * diffuse[..., None] + 0.28 * highlight[..., None]
    art.paint(picture[around], art.coverage(distance), surface)


def _draw_part(surface, creature: _Creature, y, x) -> None:
    """Paints the telling part on the surface whose pixels lie at (y, x)."""
    scale = np.float32(creature.part_radius)
    dy, dx = (y - np.float32(creature.part_centre[0])) / scale, (x - np.float32(creature.part_centre[1])) / scale
    across, along = _rotate(dy, dx, creature.part_angle)
    art.PARTS[CLASS_NAMES[creature.label]](surface, across, along, scale)


def _draw_distractor(rng, picture, light) -> None:
    """A pebble or a splinter in the colours of bodies and parts: too small for a body, too plain for a part."""
    size = len(picture)
    (cy, cx), angle = rng.uniform(0, size, 2), rng.uniform(0, math.pi)
    length, width = size * rng.uniform(0.025, 0.07), size * rng.uniform(0.012, 0.035)
    around = art.window(size, cy, cx, 1.5 * length + width + 3)
    y, x = (axis[around] for axis in art.pixel_grid(size))
    across, along = _rotate(y - np.float32(cy), x - np.float32(cx), angle)
    family = (BODIES, PART_COLOURS)[rng.integers(2)]
    colour = np.asarray(family[rng.integers(len(family))], np.float32)
    if rng.random() < 0.5:
        distance = (np.hypot(across / length, along / width) - 1) * width
    else:
        distance = np.maximum(np.abs(across) - length, np.abs(along) - width)
    distance = distance.astype(np.float32)
    diffuse, _ = art.shade(distance, width, light)
    art.paint(picture[around], 0.35 * art.coverage(distance - 1.5), (0.04, 0.04, 0.08))
    art.paint(picture[around], art.coverage(distance), colour * diffuse[..., None])


def _draw_grass(rng, picture, mask, dark, bright) -> None:
    """A few thin blades in front of everything, in the ground's colours; what they cover is background."""
    size = len(picture)
    y, x = art.pixel_grid(size)
    for _ in range(rng.integers(0, 4)):
        root, lean, height = rng.uniform(0, size), rng.uniform(-0.5, 0.5), size * rng.uniform(0.15, 0.4)
        rows = slice(int(size - height), size)
        rise = (size - y[rows]) / np.float32(height)
        spine = np.float32(root) + np.float32(lean * height) * rise * rise
        distance = (np.abs(x[rows] - spine) - np.float32(0.022 * size) * (1 - rise)).astype(np.float32)
        shade = np.asarray(dark, np.float32) * 0.5 + np.asarray(bright, np.float32) * np.float32(rng.uniform(0.2, 0.6))
        art.paint(picture[rows], art.coverage(distance), shade)
        mask[rows][distance < 0] = 0
