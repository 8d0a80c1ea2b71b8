"""How good a model is: prompts played on cases of known truth, metrics, baselines, reports."""
