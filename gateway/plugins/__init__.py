"""`fairlead plugin`: writes a plugin package, and lists the plugins that are installed."""
