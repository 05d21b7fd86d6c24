import torch

from sae_sweep.data.positions import counted_positions, target_positions
from sae_sweep.model.parting import Parting

BOS, EOS, PAD = 1, 2, 3
SPECIAL = torch.tensor([BOS, EOS, PAD])
ROWS = torch.tensor(
    [
        [BOS, 10, 11, 12, 13],  # with BOS: counted from the second position
        [10, 11, 12, 13, 14],  # without: the first is attention's sink
        [BOS, 10, EOS, 11, 12],  # a document ends inside
        [10, 11, EOS, EOS, 12],  # the same without BOS
        [BOS, 10, 11, PAD, PAD],  # padding on the right
        [PAD, PAD, 10, 11, 12],  # and on the left
        [10, BOS, 11, 12, BOS],  # BOS, but not in front
    ]
)
COUNTED = [
    [0, 1, 1, 1, 1],
    [0, 1, 1, 1, 1],
    [0, 1, 0, 1, 1],
    [0, 1, 0, 0, 1],
    [0, 1, 1, 0, 0],
    [0, 0, 1, 1, 1],
    [0, 0, 1, 1, 0],
]
TARGETS = [
    [0, 1, 1, 1, 0],
    [0, 1, 1, 1, 0],
    [0, 0, 0, 1, 0],
    [0, 0, 0, 0, 0],
    [0, 1, 0, 0, 0],
    [0, 0, 1, 1, 0],
    [0, 0, 1, 0, 0],
]


def test_counted_positions_by_hand() -> None:
    counted = counted_positions(ROWS, SPECIAL, BOS)
    assert counted.dtype == torch.bool
    assert counted.int().tolist() == COUNTED


def test_target_positions_by_hand() -> None:
    targets = target_positions(counted_positions(ROWS, SPECIAL, BOS), ROWS, SPECIAL)
    assert targets.dtype == torch.bool
    assert targets.int().tolist() == TARGETS


def test_without_a_tokenizer_all_but_the_first_count() -> None:
    none = torch.tensor([], dtype=torch.int64)
    counted = counted_positions(ROWS, none, None)
    assert counted.int().tolist() == [[0, 1, 1, 1, 1]] * len(ROWS)
    assert target_positions(counted, ROWS, none).int().tolist() == [[0, 1, 1, 1, 0]] * len(ROWS)


def test_bos_never_counts_even_if_it_is_not_listed_as_special() -> None:
    counted = counted_positions(torch.tensor([[10, BOS, 11]]), torch.tensor([EOS]), BOS)
    assert counted.int().tolist() == [[0, 0, 1]]


def test_tokens_may_be_int32_and_inputs_stay_as_they_are() -> None:
    tokens, before = ROWS.int(), ROWS.clone()
    counted = counted_positions(tokens, SPECIAL, BOS)
    kept = counted.clone()
    target_positions(counted, tokens, SPECIAL)
    assert torch.equal(counted, kept)
    assert torch.equal(tokens.long(), before)


def test_the_first_token_of_each_document_does_not_count_where_they_are_read_apart() -> None:
    tokens = torch.tensor([[10, 11, EOS, 12, 13, EOS, ~14, 15]])
    counted = counted_positions(tokens, torch.tensor([EOS]), None, Parting(None, EOS))
    assert counted.int().tolist() == [[0, 1, 0, 0, 1, 0, 0, 1]]
    assert target_positions(counted, tokens, torch.tensor([EOS])).int().tolist() == [[0, 0, 0, 0, 0, 0, 0, 0]]
