"""
What ``mkdocs build`` does for this site beyond its plugins.

The site asks no other host for anything.  So it brings its own copy of Mermaid, which draws the diagrams in the
reader's browser: npm downloads the package once into ``.cache/``, and only pages with a diagram load it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

MERMAID_VERSION = "11.17.2"
#: Of ``dist/mermaid.min.js`` in that version's package.
MERMAID_SHA256 = "581ed7d74bd9048d0e3a91363927d72ef22942d7722546b27f7cc29e35390eb8"
MERMAID_URI = "javascripts/mermaid.min.js"

CACHE = Path(__file__).parents[2] / ".cache"


def on_files(files: Files, config: Any) -> Files:
    """Add Mermaid to the site's files."""
    files.append(File.generated(config, MERMAID_URI, abs_src_path=str(mermaid())))
    return files


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Load Mermaid in a page with a diagram, before the theme looks for it."""
    if 'class="mermaid"' not in output:
        return output
    root = "../" * page.url.count("/")
    return output.replace("</head>", f'<script src="{root}{MERMAID_URI}"></script></head>', 1)


def on_post_build(config: Any) -> None:
    """Refuse a site that makes a browser load something from another host."""
    loads = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"((?:https?:)?//[^\"]+)")
    styles = re.compile(r"<link\b[^>]*\brel=\"?(?:stylesheet|preconnect|icon)\b[^>]*\bhref=\"((?:https?:)?//[^\"]+)")
    for page in Path(config.site_dir).rglob("*.html"):
        text = page.read_text()
        found = loads.findall(text) + styles.findall(text)
        if found:
            raise PluginError(f"{page} loads from another host: {', '.join(found)}")


def mermaid() -> Path:
    """The path of Mermaid's script, downloaded with npm unless it is in the cache."""
    path = CACHE / f"mermaid-{MERMAID_VERSION}.min.js"
    if not path.exists():
        _download(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != MERMAID_SHA256:
        raise PluginError(f"{path} is not the file that was expected.  Delete it, and build the site again.")
    return path


def _download(path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise PluginError("The diagrams need Mermaid, an npm package.  Install Node.js, then build the site again.")
    with tempfile.TemporaryDirectory() as folder:
        package = f"mermaid@{MERMAID_VERSION}"
        done = subprocess.run(
            [npm, "pack", "--silent", package], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise PluginError(f"npm could not download {package}: {done.stderr.strip()}")
        with tarfile.open(Path(folder, f"mermaid-{MERMAID_VERSION}.tgz")) as archive:
            script = archive.extractfile("package/dist/mermaid.min.js")
            assert script is not None
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(script.read())
