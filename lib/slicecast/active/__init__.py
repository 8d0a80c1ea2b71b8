"""What is worth an annotator's time next: which volume, which slice. Pure: arrays in, rankings out."""
