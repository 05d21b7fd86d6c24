"""Does SAELens read what was saved? Run it in an environment that has sae-lens (`make .venv-interop`):

    .venv-interop/bin/python scripts/check_saelens.py FOLDER [--pushed]

With `--pushed` FOLDER stands for a repository of the hub, from which members are loaded by `SAE.from_pretrained`.
Each member folder in FOLDER holds what `SAE.load_from_disk` reads and `saelens_check.safetensors`: raw activations `x`
([B, d], or [B, heads, d_head] at hook_z), and the `codes` [B, F] and `reconstruction` [B, d] that they should give.
Exit codes: 0 all agree, 1 some do not, 2 nothing to check.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from sae_lens import SAE  # type: ignore[import-not-found]
from sae_lens.loading import pretrained_sae_loaders  # type: ignore[import-not-found]
from safetensors.torch import load_file
from torch import Tensor

CHECK = "saelens_check.safetensors"
TOLERANCE = 1e-5
"""Of differences, relative to the token's largest entry. Also the margin to a gate or threshold, relative to the
activation's norm, within which rounding decides the side."""


@dataclass(frozen=True)
class Comparison:
    """One member's differences, each relative to the token's largest entry."""

    name: str
    architecture: str
    tokens: int
    latents: int
    firing: int
    """Entries of the expected codes that are not 0."""
    codes: float
    """Of entries that are not on a boundary."""
    reconstruction: float
    """Of tokens on which SAELens decided no boundary entry differently."""
    boundary: int
    """Entries within the tolerance of a gate or threshold, counted apart."""
    flipped: int
    """Of those, the ones that fire on one side only."""

    @property
    def agrees(self) -> bool:
        return self.firing > 0 and self.codes <= TOLERANCE and self.reconstruction <= TOLERANCE  # NaN is not


def from_repository(folder: Path) -> SAE:
    """What SAELens makes of a member in a repository whose files are those beside it; nothing is downloaded."""
    pretrained_sae_loaders.hf_hub_download = lambda repo_id, filename, **_: str(folder.parent / filename)
    return SAE.from_pretrained("user/repo", folder.name, device="cpu")


@torch.no_grad()
def compare(folder: Path, *, pushed: bool) -> Comparison:
    """SAELens's codes and reconstructions of a member against the expected ones."""
    sae = from_repository(folder) if pushed else SAE.load_from_disk(folder, device="cpu")
    expected = load_file(folder / CHECK)
    x = expected["x"]
    codes_BF = sae.encode(x)
    reconstruction_BD = sae(x).flatten(1)
    boundary_BF = _margins(sae, x.flatten(1)) <= TOLERANCE * x.flatten(1).norm(dim=1, keepdim=True)
    flipped_BF = (codes_BF > 0) != (expected["codes"] > 0)
    code_differences_BF = _relative(codes_BF, expected["codes"])
    same_B = ~(boundary_BF & flipped_BF).any(1)
    return Comparison(
        name=folder.name,
        architecture=sae.cfg.architecture(),
        tokens=len(x),
        latents=codes_BF.shape[1],
        firing=int((expected["codes"] != 0).sum()),
        codes=_largest(code_differences_BF[~boundary_BF]),
        reconstruction=_largest(_relative(reconstruction_BD, expected["reconstruction"])[same_B]),
        boundary=int(boundary_BF.sum()),
        flipped=int((boundary_BF & flipped_BF).sum()),
    )


def _relative(found_BF: Tensor, expected_BF: Tensor) -> Tensor:
    """Differences by the token's largest entry; tokens with hardly any are measured by the average token's."""
    largest_B = expected_BF.abs().amax(1)
    scale_B = torch.maximum(largest_B, largest_B.mean()).clamp_min(torch.finfo(largest_B.dtype).tiny)
    return (found_BF - expected_BF).abs() / scale_B[:, None]


def _largest(differences: Tensor) -> float:
    """NaN when anything is, which then agrees with nothing."""
    return differences.max().item() if differences.numel() else float("nan")


def _margins(sae: SAE, x_BD: Tensor) -> Tensor:
    """[B, F]: how far each latent is from the jump of its activation; infinite where the activation has none."""
    z_BF = (x_BD - sae.b_dec if sae.cfg.apply_b_dec_to_input else x_BD) @ sae.W_enc
    match sae.cfg.architecture():
        case "gated":
            return (z_BF + sae.b_gate).abs()
        case "jumprelu" | "jumprelu_transcoder" | "jumprelu_skip_transcoder":
            return (z_BF + sae.b_enc - sae.threshold).abs()
        case "topk":
            pre_BF = z_BF + sae.b_enc
            last_B2 = pre_BF.topk(min(sae.cfg.k + 1, pre_BF.shape[1]), dim=1).values[:, -2:]
            return (pre_BF - last_B2.mean(1, keepdim=True)).abs()
    return torch.full_like(z_BF, torch.inf)


def print_table(comparisons: Sequence[Comparison]) -> None:
    header = ("member", "architecture", "tokens", "latents", "codes", "reconstruction", "boundary", "flipped", "")
    rows = [
        (
            *(c.name, c.architecture, str(c.tokens), str(c.latents), f"{c.codes:.1e}", f"{c.reconstruction:.1e}"),
            *(str(c.boundary), str(c.flipped), "agrees" if c.agrees else "DISAGREES"),
        )
        for c in comparisons
    ]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main(arguments: Sequence[str]) -> int:
    pushed = "--pushed" in arguments
    arguments = [word for word in arguments if word != "--pushed"]
    if len(arguments) != 1:
        print("usage: check_saelens.py FOLDER [--pushed]", file=sys.stderr)
        return 2
    folders = sorted(check.parent for check in Path(arguments[0]).glob(f"*/{CHECK}"))
    if not folders:
        print(f"{arguments[0]}: no member folder in it has {CHECK}", file=sys.stderr)
        return 2
    comparisons = [compare(folder, pushed=pushed) for folder in folders]
    print_table(comparisons)
    return 0 if all(comparison.agrees for comparison in comparisons) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
