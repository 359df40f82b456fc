"""Code that several dialects use. It knows no dialect."""
