"""An SVG as pixels, by a browser that is there anyway: no library of Python's own draws text as well."""

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from sae_sweep.errors import ConfigError
from sae_sweep.reporting.picture import HEIGHT, WIDTH

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS = 60.0
SCALE = 2


def rasterised(svg: str) -> bytes:
    """A PNG of a picture, of twice its size. Raises ConfigError where there is no browser, or it draws nothing."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise ConfigError("show: --format=png needs chromium or google-chrome on PATH; --format=svg needs nothing")
    with TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "picture.html").write_text(f"<style>body{{margin:0}}</style>{svg}", encoding="utf-8")
        command = [
            *(browser, "--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}"),
            *(f"--force-device-scale-factor={SCALE}", f"--window-size={WIDTH},{HEIGHT}"),
            *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),  # root may not have one
            *(f"--screenshot={folder / 'picture.png'}", (folder / "picture.html").as_uri()),
        ]
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=SECONDS)
            return (folder / "picture.png").read_bytes()
        except (OSError, subprocess.SubprocessError) as error:
            raise ConfigError(
                f"show: {browser} draws no png ({type(error).__name__}); --format=svg needs it not"
            ) from error
