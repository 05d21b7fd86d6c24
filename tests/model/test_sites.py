import pytest

from sae_sweep.config.schema import SiteConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.facts import ModelFacts
from sae_sweep.model.sites import HOOK_OF_KIND, Site, resolve_site, site_width

FACTS = ModelFacts(d_model=32, n_layers=4, n_heads=4, d_head=16, d_mlp=80, vocab_size=300, n_experts=6)


@pytest.mark.parametrize("kind", HOOK_OF_KIND)
def test_kind_and_hook_name_the_same_site(kind: str) -> None:
    site = resolve_site(SiteConfig(kind, 3, None, None, None, None), FACTS)
    assert site == resolve_site(SiteConfig(None, None, site.hook, None, None, None), FACTS)
    assert (site.kind, site.layer) == (kind, 3)
    assert site_width(site, FACTS) == {"mlp_post": 80, "attn_z": 64, "router": 6}.get(kind, 32)


def test_names_are_transformer_lenss() -> None:
    assert resolve_site(SiteConfig("resid_mid", None, None, None, None, None), FACTS).hook == "blocks.2.hook_resid_mid"
    assert resolve_site(SiteConfig("mlp_post", 0, None, None, None, None), FACTS).hook == "blocks.0.mlp.hook_post"
    assert resolve_site(SiteConfig("attn_z", 1, None, None, None, None), FACTS).hook == "blocks.1.attn.hook_z"


def test_any_other_hook_keeps_no_kind() -> None:
    inside = resolve_site(SiteConfig(None, None, "blocks.1.ln1.hook_normalized", None, None, None), FACTS)
    assert inside == Site(None, 1, "blocks.1.ln1.hook_normalized")
    assert resolve_site(SiteConfig(None, None, "hook_embed", None, None, None), FACTS) == Site(None, None, "hook_embed")
    assert site_width(inside, FACTS) is None


def test_a_hook_wins_over_the_default_kind() -> None:
    assert (
        resolve_site(SiteConfig("resid_post", None, "blocks.1.hook_mlp_out", None, None, None), FACTS).kind == "mlp_out"
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SiteConfig(None, None, None, None, None, None), "both null"),
        (SiteConfig("resid", None, None, None, None, None), r"site\.kind=resid is unknown; known: resid_pre"),
        (SiteConfig("resid_pre", 9, None, None, None, None), r"site\.layer=9 is beyond the model: 0 to 3"),
        (SiteConfig("resid_pre", -1, None, None, None, None), r"site\.layer=-1 is beyond"),
        (
            SiteConfig(None, None, "blocks.4.hook_mlp_out", None, None, None),
            r"site\.hook=blocks\.4\.hook_mlp_out is beyond",
        ),
        (SiteConfig(None, 2, "blocks.1.hook_mlp_out", None, None, None), "a hook names its own layer"),
        (SiteConfig("mlp_in", 1, None, None, "mlp", None), r"site\.output=mlp is no known kind; give one of resid_pre"),
        (SiteConfig("mlp_in", 1, None, None, "hook_embed", None), r"site\.output=hook_embed is no known kind"),
        (SiteConfig("mlp_in", 1, None, None, "mlp_in", None), r"site\.output=mlp_in is what is read; leave it null"),
        (
            SiteConfig("mlp_in", 1, None, None, "resid_mid", None),
            r"site\.output=resid_mid: the model computes .* before",
        ),
        (SiteConfig("mlp_in", 1, None, None, "blocks.0.hook_mlp_out", None), r"blocks\.0\.hook_mlp_out before"),
        (SiteConfig("mlp_in", 1, None, None, "blocks.9.hook_mlp_out", None), r"beyond the model: 0 to 3"),
        (SiteConfig(None, None, "hook_embed", 32, "mlp_out", None), r"in the block of hook_embed, which is in none"),
    ],
)
def test_errors(config: SiteConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_site(config, FACTS)


def test_an_output_is_a_kind_in_the_same_block_or_a_hook() -> None:
    site = resolve_site(SiteConfig("mlp_in", 1, None, None, "mlp_out", None), FACTS)
    assert site.hooks == ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")
    assert site.written == Site("mlp_out", 1, "blocks.1.hook_mlp_out")
    assert resolve_site(SiteConfig("mlp_in", 1, None, None, "blocks.1.hook_mlp_out", None), FACTS) == site
    later = resolve_site(SiteConfig("resid_post", 0, None, None, "blocks.3.hook_resid_post", None), FACTS)
    assert later.name == "blocks.0.hook_resid_post -> blocks.3.hook_resid_post"
    plain = resolve_site(SiteConfig("mlp_in", 1, None, None, None, None), FACTS)
    assert (plain.hooks, plain.written) == ((plain.hook,), plain)
