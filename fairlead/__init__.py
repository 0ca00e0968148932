"""What plugin authors import: `fairlead.plugin` and `fairlead.testing`."""
