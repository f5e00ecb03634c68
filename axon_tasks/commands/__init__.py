"""Pure builders: settings in, shell text out. Nothing here does any I/O."""
