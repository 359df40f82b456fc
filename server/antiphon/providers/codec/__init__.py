"""What the readers and encoders of all protocols share. Knows no protocol; no I/O."""
