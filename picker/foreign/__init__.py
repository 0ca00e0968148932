"""Plugins that do not ship with fairlead: found, checked, and kept from breaking a request."""
