"""Products of small matrices, a few rows at a time, chosen from before they leave the core's cache: that takes two
thirds of the time of a library's product and a look at what it wrote."""

import numpy as np

from sae_sweep.kernels.cpu.choosing import Parts, Room, list_above, list_largest
from sae_sweep.kernels.cpu.compiling import Array, Whole, compiled
from sae_sweep.kernels.cpu.instructions import TILE_ROWS, tile

PRODUCTS = 2**16
"""That are made before they are looked at: half of a core's own cache."""


@compiled
def products_above(x_RD: Array, panels: Array, bias_F: Array, floor_F: Array, out: Room) -> Whole:
    """`above` where z are products of rows x and the columns that `panels` hold."""
    count: Whole = np.int64(0)
    out[0][0] = 0
    z_RF, last_RD = _room_for_products(x_RD, panels)
    for first in range(0, x_RD.shape[0], z_RF.shape[0]):
        rows = _multiply(x_RD, last_RD, first, panels, z_RF)
        count = list_above(z_RF[:rows], bias_F, floor_F, out, first, count)
    return count


@compiled
def largest_products(x_RD: Array, panels: Array, bias_F: Array, parts: Parts, out: Room) -> Whole:
    """`largest_of_rows` where z are products of rows x and the columns that `panels` hold."""
    floors_F = np.zeros(bias_F.size, x_RD.dtype)
    count: Whole = np.int64(0)
    out[0][0] = 0
    z_RF, last_RD = _room_for_products(x_RD, panels)
    for first in range(0, x_RD.shape[0], z_RF.shape[0]):
        rows = _multiply(x_RD, last_RD, first, panels, z_RF)
        count = list_largest(z_RF[:rows], bias_F, parts, floors_F, out, first, count)
    return count


@compiled
def fill_panels(W_FD: Array, panels: Array) -> None:
    """Lay out W [F, D] as panels [F / width, D, width]: so many columns of a product side by side."""
    for panel in range(panels.shape[0]):
        for column in range(panels.shape[2]):
            row_D = W_FD[panel * panels.shape[2] + column]
            for place in range(row_D.size):
                panels[panel, place, column] = row_D[place]


@compiled
def _room_for_products(x_RD: Array, panels: Array) -> tuple[Array, Array]:
    """For as many rows of products [.., F] as stay in a core's cache; and the rows x [TILE_ROWS, D] that fill no
    tile, below each other."""
    latents = panels.shape[0] * panels.shape[2]
    tiles = max(1, PRODUCTS // (TILE_ROWS * latents))
    last_RD = np.zeros((TILE_ROWS, x_RD.shape[1]), x_RD.dtype)
    left = x_RD.shape[0] % TILE_ROWS
    last_RD[:left] = x_RD[x_RD.shape[0] - left :]
    return np.empty((tiles * TILE_ROWS, latents), x_RD.dtype), last_RD


@compiled
def _multiply(x_RD: Array, last_RD: Array, first: Whole, panels: Array, z_RF: Array) -> Whole:
    """Products of the rows from `first` on, as many as there are and z has room for; how many those are. A panel
    stays in the cache closest to the core while the rows go by."""
    rows = min(z_RF.shape[0], x_RD.shape[0] - first)
    for panel in range(panels.shape[0]):
        for row in range(0, rows, TILE_ROWS):
            if first + row + TILE_ROWS <= x_RD.shape[0]:
                tile(x_RD, first + row, panels, panel, z_RF, row)
            else:
                tile(last_RD, 0, panels, panel, z_RF, row)
    return rows
