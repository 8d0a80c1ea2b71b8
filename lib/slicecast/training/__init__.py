"""Training: generated clips, losses, and a loop that also fine-tunes from submitted labels."""
