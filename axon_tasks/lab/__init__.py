"""A throw-away data centre on one Linux machine, and a sample application."""
