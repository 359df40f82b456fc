"""A chat call, from admission to settlement."""
