"""The animation: a turning torus with a woven skin, ray-marched in NumPy.

On one machine the same index gives the same bytes in every process.

How this works. First one ray per tile is traced, as a cone as wide as the tile, with the distance function of the torus
(sphere tracing). Where a cone comes near the torus, a ray for each pixel of the tile is traced from there, in a few
steps; the other tiles show the background. The glow and the background are smooth, so they are computed once for each
tile and interpolated. The colour depends on two angles of the point where a ray hits the torus, which form bands.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias, cast

import numpy as np

__all__ = ["render"]

Field: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"
Pixels: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"
Places: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"

_TILE = 6
_MAJOR, _MINOR = np.float32(1.0), np.float32(0.42)
_CAMERA, _FOCUS = np.float32(3.9), np.float32(2.45)
_BEHIND = _CAMERA + np.float32(1.6)
_CLOSE = np.float32(0.003)
_LIGHT = np.array([-0.48, 0.68, 0.55], np.float32) / np.float32(np.sqrt(0.48**2 + 0.68**2 + 0.55**2))
_TAU = np.float32(2 * np.pi)


def _grid(rows: int, columns: int, height: int, width: int) -> tuple[Field, Field]:
    """Return the positions on the screen of the centres of rows and columns: -1 to 1 from bottom to top."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32).reshape(2, -1)
    across = ((2 * x + 1) * np.float32(width / columns) - width) / np.float32(height)
    up = (height - (2 * y + 1) * np.float32(height / rows)) / np.float32(height)
    return across, up


@cache
def _rays(rows: int, columns: int, height: int, width: int) -> Field:
    across, up = _grid(rows, columns, height, width)
    rays = np.stack([across, up, np.full_like(across, -_FOCUS)])
    rays /= np.sqrt((rays * rays).sum(0))
    return rays


@cache
def _spreading(small: int, large: int) -> Field:
    """Return the matrix that interpolates `small` values linearly to `large` ones."""
    place = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    low = np.minimum(place.astype(np.intp), max(small - 2, 0))
    matrix = np.zeros((large, small), np.float32)
    matrix[np.arange(large), low] = 1 - (place - low)
    matrix[np.arange(large), np.minimum(low + 1, small - 1)] += (place - low).astype(np.float32)
    return matrix


def _rotation(phase: float) -> Field:
    """Return the rotation from world to torus. At phase 1 it is that of phase 0."""
    turn, lean = 2 * np.pi * phase, 0.95 + 0.5 * np.sin(2 * np.pi * phase)
    about_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(lean), -np.sin(lean)], [0, np.sin(lean), np.cos(lean)]])
    tilt = np.array([[np.cos(0.4), -np.sin(0.4), 0], [np.sin(0.4), np.cos(0.4), 0], [0, 0, 1]])
    return cast("Field", (about_y @ about_x @ tilt).astype(np.float32))


def _distance(origin: Field, rays: Field, travelled: Field) -> Field:
    x, y, z = (origin[axis] + rays[axis] * travelled for axis in range(3))
    ring = np.sqrt(x * x + z * z) - _MAJOR
    return cast("Field", np.sqrt(ring * ring + y * y) - _MINOR)


def _cones(origin: Field, rays: Field, spread: float) -> tuple[Field, Field]:
    """Return for each tile where its cone first comes near (infinite if never), and the least distance as an angle."""
    travelled = np.full(rays.shape[1], _CAMERA - np.float32(1.6), np.float32)
    start = np.full_like(travelled, np.inf)
    nearest = np.full_like(travelled, np.inf)
    for _ in range(40):
        apart = _distance(origin, rays, travelled)
        nearest = np.minimum(nearest, np.maximum(apart, 0) / travelled)
        start = np.where((apart < travelled * np.float32(spread)) & np.isinf(start), travelled, start)
        travelled = np.minimum(travelled + np.maximum(apart, np.float32(0.01)), _BEHIND)
    return start, nearest


def _march(origin: Field, rays: Field, travelled: Field) -> tuple[Places, Field]:
    """Return the rays that hit, and their distances. Each ray starts at a point that is outside of the torus."""
    active = np.arange(rays.shape[1])
    hits, reached = [], []
    for _ in range(10):
        for _ in range(4):  # most of the cost of removing rays is copying the others
            apart = _distance(origin, rays, travelled)
            travelled = travelled + apart
        hit = apart < _CLOSE
        hits.append(active[hit])
        reached.append(travelled[hit])
        going = ~hit & (travelled < _BEHIND)
        active, rays, travelled = active[going], rays[:, going], travelled[going]
        if not active.size:
            break
    return np.concatenate(hits), np.concatenate(reached)


def _palette(value: Field) -> Field:
    """Return colours of a cyclic ramp: deep blue, teal, gold, rose."""
    base = np.array([0.52, 0.44, 0.50], np.float32)[:, None]
    swing = np.array([0.48, 0.38, 0.46], np.float32)[:, None]
    shift = np.array([0.02, 0.24, 0.52], np.float32)[:, None]
    return cast("Field", base + swing * np.cos(_TAU * (value[None] + shift)))


def _shade(point: Field, ray: Field, light: Field, phase: float) -> Field:
    """Return the colour where a ray hits, all in the coordinates of the torus."""
    ring = np.hypot(point[0], point[2])
    normal = point / _MINOR
    normal[[0, 2]] *= 1 - _MAJOR / ring
    around = np.arctan2(point[2], point[0]) / _TAU
    across = np.arctan2(point[1], ring - _MAJOR) / _TAU
    flow = np.float32(phase)
    weave = np.cos(_TAU * (6 * around + 2 * across - 2 * flow)) * np.cos(_TAU * (6 * around - 3 * across + flow))
    band = 1 / (1 + np.exp(-15 * weave))
    edge = np.exp(-90 * weave * weave)
    colour = _palette(around * 2 + across + flow) * (0.16 + 0.86 * band)
    colour += edge * np.array([0.36, 0.30, 0.20], np.float32)[:, None]
    facing = -(normal * ray).sum(0)
    lambert = np.maximum((normal * light[:, None]).sum(0), 0)
    mirrored = ray + 2 * facing * normal
    shine = np.maximum((mirrored * light[:, None]).sum(0), 0)
    rim = (1 - np.clip(facing, 0, 1)) ** 3
    lit: Field = colour * (0.13 + 0.95 * lambert) + 0.8 * shine**48 * (0.35 + 0.65 * band)
    lit += rim * np.array([0.22, 0.36, 0.66], np.float32)[:, None]
    return lit


def _night(across: Field, up: Field, nearest: Field, phase: float) -> Field:
    """Return the background: slow waves that interfere, and the glow of the torus."""
    turn = np.float32(2 * np.pi * phase)
    waves = np.zeros_like(across)
    for number, (x, y) in enumerate(((-1.9, 0.8), (1.7, 1.1), (0.2, -1.6))):
        waves += np.cos(8 * np.hypot(across - np.float32(x), up - np.float32(y)) - turn * (number + 1))
    middle = np.exp(-np.float32(0.9) * (across * across + up * up))
    sky: Field = np.array([[0.004], [0.007], [0.020]], np.float32) * (1 + np.float32(0.5) * up)
    sky = sky + np.array([[0.005], [0.012], [0.030]], np.float32) * np.maximum(1 + waves, 0) * middle
    sky += np.exp(-22 * nearest) * np.array([0.035, 0.075, 0.200], np.float32)[:, None]
    return sky


def render(index: int, count: int, height: int, width: int) -> Pixels:
    """Return frame `index` of a loop of `count`: height × width × RGBA, opaque."""
    phase = index / count
    rotation = _rotation(phase)
    origin: Field = rotation @ np.array([0, 0, _CAMERA], np.float32)
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    tile_rays: Field = rotation @ _rays(rows, columns, height, width)
    start, nearest = _cones(origin, tile_rays, 1.6 * _TILE / height / float(_FOCUS))

    sky = _night(*_grid(rows, columns, height, width), nearest, phase).reshape(3, rows, columns)
    colour = (_spreading(rows, height) @ sky @ _spreading(columns, width).T).reshape(3, -1)

    per_pixel = start.reshape(rows, columns).repeat(_TILE, 0)[:height].repeat(_TILE, 1)[:, :width].ravel()
    seen = np.flatnonzero(np.isfinite(per_pixel))
    rays: Field = rotation @ _rays(height, width, height, width)[:, seen]
    hit, reached = _march(origin, rays, per_pixel[seen])
    landing = origin[:, None] + rays[:, hit] * reached
    colour[:, seen[hit]] = _shade(landing, rays[:, hit], rotation @ _LIGHT, phase)

    frame = np.empty((height * width, 4), np.uint8)
    np.clip(colour, 0, 1, out=colour)
    frame[:, :3] = (255 * np.sqrt(colour) + np.float32(0.5)).T
    frame[:, 3] = 255
    return frame.reshape(height, width, 4)
