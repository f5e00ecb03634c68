"""The only package that touches SSH."""
