"""Every scorer against tables computed by hand."""
