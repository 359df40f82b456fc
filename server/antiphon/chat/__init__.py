"""The stages of a chat call, from admission to settlement."""
