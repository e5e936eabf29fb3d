"""The server's settings: what there is to set, its defaults and checks, and where values come from."""

from masklet_server.settings.settings import ENV_PREFIX, Settings, checked, flag_of, nearest, refuse_unknown

__all__ = ["ENV_PREFIX", "Settings", "checked", "flag_of", "nearest", "refuse_unknown"]
