"""Fine-tuning: configuration, losses, the Lightning module, and the run that writes a folder of results."""
