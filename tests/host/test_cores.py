"""Each thread of a pool of cores has its share of them, from its first piece of work to its last."""

from collections.abc import Iterator
from threading import Barrier, Event, get_ident

import pytest
import torch

from sae_sweep.host.cores import core_pool, side_by_side

CORES = 6


@pytest.fixture
def cores() -> Iterator[None]:
    """As many as on a larger machine, as far as torch knows."""
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "share"), [(1, 6), (2, 3), (3, 2), (4, 1), (8, 1)])
def test_every_thread_has_its_share_whatever_it_does(cores: None, count: int, share: int) -> None:
    every = Barrier(count)

    def work(_: int) -> tuple[int, list[int]]:
        every.wait()  # so that each thread has one
        shares = [torch.get_num_threads()]
        (torch.ones(300, 300) @ torch.ones(300, 300)).relu().sum()
        return get_ident(), [*shares, torch.get_num_threads()]

    with core_pool(count) as pool:
        assert pool.submit(torch.get_num_threads).result() == share, "before all of them have something to do"
        for _ in range(2):
            found = dict(pool.map(work, range(count)))
            assert list(found.values()) == [[share, share]] * count
    assert torch.get_num_threads() == CORES


CPU = torch.device("cpu")


def test_all_at_once_in_order_and_in_the_same_threads_again(cores: None) -> None:
    every = Barrier(3)

    def work(item: int) -> tuple[int, int, bool]:
        every.wait()
        return item, get_ident(), torch.is_grad_enabled()

    first, again = (list(side_by_side(work, [5, 6, 7], CPU)) for _ in range(2))
    assert [item for item, _, _ in first] == [5, 6, 7]
    assert not any(grad for _, _, grad in first)
    assert {thread for _, thread, _ in first} == {thread for _, thread, _ in again}


def test_where_one_fails_no_other_is_left_running(cores: None) -> None:
    failed, done = Event(), []

    def work(item: int) -> None:
        if item == 0:
            failed.set()
            raise MemoryError("no room")
        failed.wait()
        done.append(item)

    with pytest.raises(MemoryError, match="no room"):
        list(side_by_side(work, [0, 1, 2], CPU))
    assert sorted(done) == [1, 2]
