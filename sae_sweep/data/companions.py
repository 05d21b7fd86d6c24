"""Columns beside token ids that say what the ids mean: which are padding, and which are not to be learned from."""

import logging
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_sweep.data.packing import Ids, check_integers, checked_ids
from sae_sweep.errors import ConfigError

COMPANIONS = ("attention_mask", "special_tokens_mask", "labels", "position_ids", "token_type_ids")
_NO_TARGET = -100  # a label that losses leave out

log = logging.getLogger(__name__)


def told_companions(columns: Collection[str], field: str, label: str) -> list[str]:
    """Which of the columns are read beside `field`. Says once what they do, and which columns are not read."""
    found = [name for name in COMPANIONS if name in columns and name != field]
    unread = [name for name in columns if name not in found and name != field]
    if found:
        log.warning(
            "%s: %s say which positions are padding or not to be learned from; these are neither trained on nor judged",
            *(label, ", ".join(found)),
        )
    if unread:
        log.warning("%s: not read: %s", label, ", ".join(unread))
    return found


def encoded(ids: npt.NDArray[Any], beside: Mapping[str, npt.NDArray[Any]], vocab_size: int, label: str) -> Ids:
    """Rows [n, L] as sheets hold them: the real tokens of each first, and ~id at positions that do not count.

    Attention looks back only, so that a row whose padding was moved to its end is read as with a mask and positions
    that count from the first real token. Rows of nothing but padding are left out. Raises ConfigError for what cannot
    be honoured: a mask with holes, positions that do not count up from 0, token types other than 0.
    """
    if not beside or ids.shape[1] == 0:
        return checked_ids(ids, vocab_size, label)
    check_integers(ids, label)
    for name, values in beside.items():
        if values.dtype.kind not in "buif":
            raise ConfigError(f"{label}: {name} holds {values.dtype} values; it is made of numbers")
        if values.shape != ids.shape:
            raise ConfigError(f"{label}: {name} has {list(values.shape)} entries, and the ids {list(ids.shape)}")
    place_L = np.arange(ids.shape[1])
    real_nL = beside["attention_mask"] != 0 if "attention_mask" in beside else np.ones(ids.shape, dtype=bool)
    start_n, count_n = real_nL.argmax(1)[:, None], real_nL.sum(1)[:, None]
    if (real_nL != ((place_L >= start_n) & (place_L < start_n + count_n))).any():
        raise ConfigError(f"{label}: attention_mask has holes, which no row can have; give each stretch a row")
    checked = checked_ids(np.where(real_nL, ids, 0) if "attention_mask" in beside else ids, vocab_size, label)
    moved = {
        name: np.take_along_axis(values, (place_L + start_n) % ids.shape[1], axis=1)
        for name, values in {**beside, "ids": checked}.items()
    }
    counted_nL = place_L < count_n
    if "position_ids" in moved and ((moved["position_ids"] != place_L) & counted_nL).any():
        raise ConfigError(
            f"{label}: position_ids do not count up from 0 at each row's first real token, which no row can have; give"
            " each document a row of its own"
        )
    if "token_type_ids" in moved and ((moved["token_type_ids"] != 0) & counted_nL).any():
        raise ConfigError(f"{label}: token_type_ids other than 0 cannot be honoured; leave the column out")
    if "labels" in moved:
        counted_nL &= moved["labels"] != _NO_TARGET
    if "special_tokens_mask" in moved:
        counted_nL &= moved["special_tokens_mask"] == 0
    rows: Ids = np.where(counted_nL, moved["ids"], ~moved["ids"])
    return rows[count_n[:, 0] > 0]
