import pytest

from sae_sweep.config import SiteConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.facts import ModelFacts
from sae_sweep.model.sites import HOOK_OF_KIND, Site, resolve_site, site_width

FACTS = ModelFacts(d_model=32, n_layers=4, n_heads=4, d_head=16, d_mlp=80, vocab_size=300)


@pytest.mark.parametrize("kind", HOOK_OF_KIND)
def test_kind_and_hook_name_the_same_site(kind: str) -> None:
    site = resolve_site(SiteConfig(kind, 3, None, None), FACTS)
    assert site == resolve_site(SiteConfig(None, None, site.hook, None), FACTS)
    assert (site.kind, site.layer) == (kind, 3)
    assert site_width(site, FACTS) == {"mlp_post": 80, "attn_z": 64}.get(kind, 32)


def test_names_are_transformer_lenss() -> None:
    assert resolve_site(SiteConfig("resid_mid", None, None, None), FACTS).hook == "blocks.2.hook_resid_mid"
    assert resolve_site(SiteConfig("mlp_post", 0, None, None), FACTS).hook == "blocks.0.mlp.hook_post"
    assert resolve_site(SiteConfig("attn_z", 1, None, None), FACTS).hook == "blocks.1.attn.hook_z"


def test_any_other_hook_keeps_no_kind() -> None:
    inside = resolve_site(SiteConfig(None, None, "blocks.1.ln1.hook_normalized", None), FACTS)
    assert inside == Site(None, 1, "blocks.1.ln1.hook_normalized")
    assert resolve_site(SiteConfig(None, None, "hook_embed", None), FACTS) == Site(None, None, "hook_embed")
    assert site_width(inside, FACTS) is None


def test_a_hook_wins_over_the_default_kind() -> None:
    assert resolve_site(SiteConfig("resid_post", None, "blocks.1.hook_mlp_out", None), FACTS).kind == "mlp_out"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SiteConfig(None, None, None, None), "both null"),
        (SiteConfig("resid", None, None, None), r"site\.kind=resid is unknown; known: resid_pre"),
        (SiteConfig("resid_pre", 9, None, None), r"site\.layer=9 is beyond the model: 0 to 3"),
        (SiteConfig("resid_pre", -1, None, None), r"site\.layer=-1 is beyond"),
        (SiteConfig(None, None, "blocks.4.hook_mlp_out", None), r"site\.hook=blocks\.4\.hook_mlp_out is beyond"),
        (SiteConfig(None, 2, "blocks.1.hook_mlp_out", None), "a hook names its own layer"),
    ],
)
def test_errors(config: SiteConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_site(config, FACTS)
