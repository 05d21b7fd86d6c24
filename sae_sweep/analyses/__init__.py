"""Questions asked of finished members: one file each, here or in another package (entry points `sae_sweep.analyses`).

An analysis is a module with a dataclass `Config`, whose keys are `analysis.<name>.<key>` on the command line and whose
defaults are in `configs/analysis/<name>.yaml` or in the dataclass, and with a function

    run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Result

or a generator that yields for each batch of held-out rows (`session.readings`) and returns its Result. What it keeps
longer than a batch is in `session.kept`: an analysis that is killed begins anew and is given the batches it lacks.
"""

from sae_sweep.host.kinds import Kinds

ANALYSES = Kinds("sae_sweep.analyses", "sae_sweep.analyses")
