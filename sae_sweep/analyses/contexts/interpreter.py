"""What an automatic interpreter is asked of latents, and how its answers score (Bills et al. 2023; Paulo et al. 2024,
arXiv 2410.13928). Questions are lines of a file, answers lines of another: no network of ours.

`explain` asks for a sentence on the top contexts. Once a latent has one, `detection` asks which of some contexts it is
true of, half of which the latent fires on; `fuzzing` which of some have the right tokens marked, half of which do.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_sweep.errors import ConfigError

OPEN, CLOSE = "<<", ">>"
EXPLAIN = (
    "Tokens on which one unit of a language model is active are between << and >>. Say in one sentence what they have"
    " in common. Answer with the sentence alone."
)
DETECT = (
    "A unit of a language model is said to be active on: {said}\nWhich of these texts does it fire on? Answer with a"
    " JSON list of 0 and 1, one for each text."
)
FUZZ = (
    "A unit of a language model is said to be active on: {said}\nIn which of these texts are the tokens on which it"
    " fires marked with << and >>? Answer with a JSON list of 0 and 1, one for each text."
)


@dataclass(frozen=True)
class Text:
    """A context as an interpreter is shown it."""

    tokens: Sequence[str]
    activations: Sequence[float]

    def plain(self) -> str:
        """Without marks."""
        return "".join(self.tokens)

    def marked(self, marks: Iterable[int]) -> str:
        """With some of its tokens between marks."""
        at = set(marks)
        return "".join(f"{OPEN}{token}{CLOSE}" if i in at else token for i, token in enumerate(self.tokens))

    @property
    def active(self) -> list[int]:
        """The tokens on which the latent fires: those with half of its largest activation here or more."""
        largest = max(self.activations, default=0.0)
        return [i for i, value in enumerate(self.activations) if value > 0 and value >= largest / 2]


@dataclass(frozen=True)
class Question:
    """One line of the file of questions, and what is true."""

    id: str
    prompt: str
    truth: tuple[int, ...] = ()


def explain(latent: str, top: Sequence[Text]) -> Question:
    """What the first question of a latent is."""
    shown = "\n".join(f"{i + 1}. {text.marked(text.active)!r}" for i, text in enumerate(top))
    return Question(f"{latent} explain", f"{EXPLAIN}\n\n{shown}")


def score_questions(latent: str, said: str, fires: Sequence[Text], silent: Sequence[Text], seed: str) -> list[Question]:
    """Detection and fuzzing of a latent with an explanation; none where there is too little to ask of."""
    count = min(len(fires), len(silent))
    if count == 0:
        return []
    draw = random.Random(f"{seed} {latent}")
    pairs = [(text.plain(), 1) for text in fires[:count]] + [(text.plain(), 0) for text in silent[:count]]
    draw.shuffle(pairs)
    marked = [(text.marked(text.active), 1) for text in fires[: count // 2]]
    marked += [(text.marked(_others(text, draw)), 0) for text in fires[count // 2 : 2 * (count // 2)]]
    draw.shuffle(marked)
    asked = [("detection", DETECT, pairs), ("fuzzing", FUZZ, marked)]
    return [_listed(f"{latent} {kind}", words.format(said=said), texts) for kind, words, texts in asked if texts]


def _others(text: Text, draw: random.Random) -> list[int]:
    """As many of its tokens as the latent fires on, but others, anywhere: where they are must not tell."""
    active = text.active
    others = [i for i in range(len(text.tokens)) if i not in active]
    return draw.sample(others, min(len(active), len(others)))


def _listed(name: str, words: str, texts: Sequence[tuple[str, int]]) -> Question:
    shown = "\n".join(f"{i + 1}. {text!r}" for i, (text, _) in enumerate(texts))
    return Question(name, f"{words}\n\n{shown}", tuple(truth for _, truth in texts))


def as_lines(questions: Iterable[Question]) -> str:
    """The file of questions: JSONL with `id` and `prompt`; what is true is not told."""
    return "".join(json.dumps({"id": one.id, "prompt": one.prompt}, ensure_ascii=False) + "\n" for one in questions)


def read_answers(file: Path) -> dict[str, Any]:
    """By id what was answered: lines with `id` and `answer`. Raises ConfigError for what cannot be read."""
    key = f"analysis.latents.answers={file}"
    try:
        lines = file.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: cannot be read ({error})") from error
    found = {}
    for number, line in enumerate(lines, 1):
        try:
            entries = json.loads(line) if line.strip() else None
            if entries is not None:
                found[str(entries["id"])] = entries["answer"]
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{key}: line {number} is not JSON with id and answer") from error
    return found


def score(question: Question, answers: Mapping[str, Any]) -> float | None:
    """The balanced accuracy of an answer; None where there is none of the right length, in numbers 0 and 1."""
    answer = answers.get(question.id)
    if isinstance(answer, str):
        try:
            answer = json.loads(answer)
        except ValueError:
            return None
    if not isinstance(answer, list) or len(answer) != len(question.truth) or not all(one in (0, 1) for one in answer):
        return None
    shares = []
    for truth in (0, 1):
        own = [said == truth for said, true in zip(answer, question.truth, strict=True) if true == truth]
        shares += [sum(own) / len(own)] if own else []
    return sum(shares) / len(shares)
