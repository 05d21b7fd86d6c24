"""The name of every file and folder of a sweep, each once. No torch, and nothing of ours."""

SWEEP = "sweep.json"
"""What was asked, the plan, each member's state."""
PARETO, REPORT = "pareto.json", "report.html"
PACE = "pace.jsonl"
"""How fast the sweep went, by the clock; DASHBOARD is the wandb workspace that would show it."""
DASHBOARD = "dashboard.json"

CONFIG = "config.yaml"
"""Of a member, fully resolved; so are all down to `LAST_GOOD`."""
CARD = "cfg.json"
"""What its weights are, in SAELens's words."""
WEIGHTS, SPARSITY = "sae_weights.safetensors", "sparsity.safetensors"
LOOKUP = "lookup.safetensors"
"""Of a tokenized SAE alone."""
PROVENANCE = "provenance.json"
"""By which command, on what and where it came to be."""
METRICS, CURVES, LOG = "metrics.json", "metrics.jsonl", "log.txt"
ROWS = "rows.safetensors"
"""The sums by held-out row that its metrics are ratios of: what paired comparisons need."""
LAYERS = "layers.json"
"""Of a cross-layer transcoder, what each of its layers is."""
FIRST_BLOCK = "first_block.safetensors"
"""What the first block of its stream says of its sites: what judging again needs of it."""
TIMES = "times.jsonl"
"""When each step of CURVES was taken."""
MILESTONES = "milestones"
"""What it was on its way, in a folder by training tokens."""
LAST_GOOD = "last_good.safetensors"
"""The resume state of a member that diverged, from before it did."""
TRAINED_FILES = (
    METRICS,
    PROVENANCE,
    WEIGHTS,
    CURVES,
    TIMES,
    CARD,
    SPARSITY,
    LOOKUP,
    ROWS,
    FIRST_BLOCK,
    LAYERS,
    LAST_GOOD,
)
"""What training leaves of a member."""

EVALUATIONS = "eval"
"""What members are on other tokens, of a sweep or a member, a file for each choice of tokens."""
FOREIGN = "foreign"
"""SAEs that were trained elsewhere and judged into the sweep, a folder each."""
ORIGIN = "origin.json"
"""Of such a one: where it is from, and what it was judged on."""
ANALYSES = "analyses"
"""Results of analyses, of a sweep or a member, a file each."""

STATE = ".state"
"""While members are unfinished: how to go on, and who does."""
LOCK, WRITE_LOCK, PROGRESS = "lock", "write.lock", "progress.json"
CHECKPOINT = "state.json"
"""Of a checkpoint: each member's place in its run and in the stream, and checksums."""
TASKS = "tasks"
"""Groups given to workers elsewhere, each in a folder with the next three."""
TASK, JOB, STATES = "task.json", "job.json", "states.json"
SLURM_LOGS = "slurm"
