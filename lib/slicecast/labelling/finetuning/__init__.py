"""Fine-tuning in a campaign: rounds of training on submitted labels, and the gate before new weights are used."""
