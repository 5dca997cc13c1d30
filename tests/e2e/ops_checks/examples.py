"""Every example configuration is one that attaché accepts."""

from .report import check, check_config, committed, short


def checks():
    for path in committed("config/examples/*", "docker/*.toml", "config/kubernetes/**/*.toml", "config/reference.toml"):
        with check(f"attache check --config {short(path)}"):
            check_config(path.read_text(), path.suffix[1:])
