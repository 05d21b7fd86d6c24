"""A strategy over command lines: every config group, values that can be and values that cannot."""

from pathlib import Path

from hypothesis import strategies as st

from tests.config.every_key import OPTIONS

NONSENSE = ("abc", "''", "true", "[1,2]", "{a:1}", "nan", "inf", "-inf", "-1", "0", "1e-30", "0.5", "null")
"""Values that most keys cannot have, and some can."""
VALUES: dict[str, tuple[str, ...]] = {
    "seed": ("1", "2147483647", "2147483648"),
    "name": ("mine", "../x", "a/b", ".hidden", "x" * 300, "with space", "-"),
    "dry_run": ("true", "false", "1"),
    "site": ("resid_pre", "resid_mid", "resid_post", "mlp_out", "mlp_post", "attn_z", "attn_out", "nowhere"),
    "site.layer": ("0", "1", "3", "4", "99"),
    "site.hook": ("blocks.1.hook_resid_post", "blocks.9.hook_resid_post", "blocks.1.hook_nothing", "ln_final"),
    "site.width": ("32", "33"),
    "model.dtype": ("float32", "float64", "bfloat16", "float16", "int8"),
    "model.device": ("cpu", "cuda:99", "tpu"),
    "model.backend": ("hf", "onnx"),
    "model.revision": ("main",),
    "model.trust_remote_code": ("false", "yes"),
    "model.d_model": ("32", "64"),
    "model.n_layers": ("4", "2"),
    "model.vocab_size": ("300", "10"),
    "data": ("demo", "text", "tokens", "hub", "toy", "nothing"),
    "data.context": ("2", "8", "16", "33", "1", "5000"),
    "data.bos": ("auto", "always", "never", "sometimes"),
    "data.seed": ("1", "123456"),
    "data.window_rows": ("1", "7", "4096"),
    "data.block_rows": ("1", "4", "8", "64"),
    "data.rows_per_forward": ("1", "3", "100"),
    "data.max_norm_ratio": ("1.001", "1.5", "10", "auto", "1", "manual"),
    "data.cache": ("kept", "/proc/nothing/here"),
    "data.path": ("nowhere.txt", "/dev/null", "[a.txt,b.txt]"),
    "data.field": ("text", "nothing"),
    "data.heldout_path": ("nowhere.txt",),
    "data.heldout_split": ("test",),
    "data.toy.dimensions": ("1", "5", "24"),
    "data.toy.latents": ("1", "30", "2"),
    "data.toy.active": ("1", "3", "31"),
    "data.toy.decay": ("1", "0.9", "1.1"),
    "data.toy.correlated": ("true", "false"),
    "data.toy.noise": ("0.1", "0"),
    "data.toy.zipf": ("null", "1", "-1"),
    "data.toy.roots": ("null", "1", "3", "99"),
    "data.toy.children": ("1", "3", "0"),
    "data.toy.exclusive": ("true", "false"),
    "data.toy.rank": ("null", "2", "0"),
    "sae.width": ("1", "2", "24", "100", "1e12"),
    "sae.expansion": ("1", "0.1", "4", "1e9"),
    "sae.l0": ("1", "3", "23.5", "24", "25", "3,5"),
    "sae.k": ("1", "3", "24", "25"),
    "sae.l1": ("0.01", "1e3", "0"),
    "sae.l0_coefficient": ("0.01", "0", "100"),
    "sae.input_scale": ("none", "sqrt_d", "unit", "whiten", "tiny"),
    "sae.coefficient_unit": ("sum", "mean_d", "mean_d_norm", "mean_square", "variance", "pounds"),
    "sae.centre": ("true", "false"),
    "sae.decoder_init": ("random", "data", "zero"),
    "sae.encoder_init": ("transpose", "random", "divided_transpose", "scaled_transpose", "matched_transpose"),
    "sae.b_dec_init": ("zero", "mean", "geometric_median"),
    "sae.lookup": ("none", "learned", "frozen", "half"),
    "sae.lookup_scale": ("0.9", "2"),
    "sae.lookup_lr": ("0.1", "1"),
    "sae.lookup_subtract": ("true", "false"),
    "sae.resample": ("true", "false"),
    "sae.p_end": ("0.5", "2"),
    "sae.penalty": ("l0", "frequency", "quadratic_frequency", "l7"),
    "sae.threshold_init": ("0.1", "10"),
    "sae.bandwidth": ("0.1", "1e-9"),
    "sae.auxk": ("4", "1000"),
    "sae.auxk_coefficient": ("1",),
    "sae.dead_after_tokens": ("1", "64"),
    "sae.groups": ("1", "3", "99"),
    "sae.prefixes": ("fixed", "sampled"),
    "sae.budgets": ("powers", "all", "half"),
    "sae.orthogonality": ("1", "0", "-1"),
    "sae.orthogonality_chunk": ("1", "2", "7"),
    "sae.high_share": ("0.5", "0.01", "1"),
    "sae.contrast": ("1", "0", "-1"),
    "training.tokens": ("64", "100", "300", "1", "48,96"),
    "training.batch_size": ("1", "16", "31", "64", "1000000"),
    "training.lr": ("1e-3", "1e6", "1e38"),
    "training.lr_warmup_steps": ("0", "3", "1000000"),
    "training.lr_decay_fraction": ("0", "1", "1.5"),
    "training.sparsity_warmup_steps": ("0", "5"),
    "training.beta1": ("0", "0.9", "1"),
    "training.beta2": ("0", "0.999"),
    "training.eps": ("1e-8", "1"),
    "training.clip": ("0", "0.1"),
    "training.checkpoint_minutes": ("0", "10"),
    "training.checkpoint_tokens": ("1", "64"),
    "training.milestones": ("[1]", "[64,10]", "log:3", "log:999", "log:0", "[1e9]", "[[1]]"),
    "evaluation.tokens": ("16", "40", "1", "1e3"),
    "evaluation.every": ("1", "64"),
    "evaluation.positions": ("counted", "all", "some"),
    "tracking.log_every": ("1", "7"),
    "tracking": ("none", "everywhere"),
    "launcher.memory_gb": ("1e-6", "1", "100"),
    "launcher.host_memory_gb": ("1e-6", "100"),
    "training.learning_rate": ("1",),
    "nonsense": ("1",),
}
"""For each key what it can be, and what it cannot. Runs stay small whatever is taken together."""
TOY = ("data=toy", "model.path=null", "site.layer=null")


def shared(model: Path, text: Path) -> list[str]:
    """What every command line begins with; a later word for the same key takes its place."""
    return [
        *("model=local", f"model.path={model}", "model.device=cpu", "data=text", f"data.path={text}", "site.layer=1"),
        *("data.context=16", "data.block_rows=8", "data.rows_per_forward=4", "sae.width=24", "tracking=none"),
        *("training.batch_size=16", "training.tokens=64", "training.lr=1e-2", "evaluation.tokens=40"),
    ]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Overrides of a command line: an architecture, toy or language model data, and some keys with drawn values. Half
    of them have few keys, and values that some config can have: nearly all that have many are refused."""
    words = list(TOY) if draw(st.booleans()) else []
    words += OPTIONS[draw(st.sampled_from(sorted(OPTIONS)))].split()
    few = draw(st.booleans())
    keys = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=2 if few else 6, unique=True))
    for key in keys:
        values = VALUES[key]
        nonsense = not few and draw(st.integers(0, 5)) == 0
        words.append(f"{key}={draw(st.sampled_from(NONSENSE if nonsense else values))}")
    return words


def merged(words: list[str]) -> list[str]:
    """Each key once, where it stands last: Hydra takes no key twice."""
    last = {word.split("=", 1)[0]: word for word in words}
    return list(last.values())
