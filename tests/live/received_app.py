"""The Flask app of the live tests, with the receivers of their workflows."""

from __future__ import annotations

import live_app
import live_flows

create_app = live_app.create_app

__all__ = ["create_app", "live_flows"]
